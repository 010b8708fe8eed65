"""Processes that do random things with sockets, and write down what and when. Runs on a target, also in a bare guest."""
