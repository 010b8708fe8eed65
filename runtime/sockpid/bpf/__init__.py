"""Kernel objects: maps, programs, links, buffers, and what this kernel can do. Knows nothing of TCP.

The names are bpf(2)'s. All system calls go through `sockpid.syscall`.
"""
