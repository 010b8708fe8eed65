"""What this host says of itself: the kernel's identity, /proc, namespaces, control groups, netlink, the clocks.

Read, never inferred, and nothing is changed.
"""
