"""Processes that do random things with sockets, and write it down. Runs on a target, also in a bare guest."""
