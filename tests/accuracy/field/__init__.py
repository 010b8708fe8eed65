"""Programs whose sockets retransmit and whose owners are known. Runs on a target, also inside a bare guest."""
