"""What is pinned on a bpf file system, kept for the next run, and told of a running one; and who asks for it."""
