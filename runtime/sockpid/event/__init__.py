"""What the programs tell: records, keys of sockets, owners, sums; as values, as JSON, as words. Pure.

The layouts are those of bpf_bytecode/sockpid.h, of which the image carries a copy.
"""
