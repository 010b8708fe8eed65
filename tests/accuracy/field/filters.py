"""Classic BPF filters that make a socket deaf, so that the kernel at the other end retransmits over loopback.

A filter sees a segment from its TCP header on. An accepted socket inherits the filter of its listener, even while it
waits in the accept queue; so a listener with DATA alone, never asked to accept, makes any number of deaf peers.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import List, Tuple

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27

LD_LEN, LDB_ABS, LD_ABS = 0x80, 0x30, 0x20  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_LEN ...
AND_K, RSH_K, MOD_K, SUB_X, TAX = 0x54, 0x74, 0x94, 0x1C, 0x07
JEQ_K, JSET_K, RET_K = 0x15, 0x45, 0x06
AD_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
KEEP = 0xFFFFFFFF
FIN, SYN = 1, 2

Instruction = Tuple[int, int, int, int]
Filter = List[Instruction]

EVERYTHING: Filter = [(RET_K, 0, 0, 0)]

# A = length of the segment behind its TCP header
_PAYLOAD: Filter = [
    (LDB_ABS, 0, 0, 12),
    (AND_K, 0, 0, 0xF0),
    (RSH_K, 0, 0, 2),
    (TAX, 0, 0, 0),
    (LD_LEN, 0, 0, 0),
    (SUB_X, 0, 0, 0),
]

DATA: Filter = [  # and FIN; a SYN passes with its data (TCP Fast Open)
    (LDB_ABS, 0, 0, 13),
    (JSET_K, 9, 0, SYN),
    (JSET_K, 7, 0, FIN),
    *_PAYLOAD,
    (JEQ_K, 1, 0, 0),
    (RET_K, 0, 0, 0),
    (RET_K, 0, 0, KEEP),
]


def lossy(one_in: int) -> Filter:
    """Drops one segment in so many of those that carry data."""
    return [
        *_PAYLOAD,
        (JEQ_K, 3, 0, 0),
        (LD_ABS, 0, 0, AD_RANDOM),
        (MOD_K, 0, 0, one_in),
        (JEQ_K, 1, 0, 0),
        (RET_K, 0, 0, KEEP),
        (RET_K, 0, 0, 0),
    ]


def drop(receiver: socket.socket, what: Filter) -> None:
    """Attaches a filter to a socket."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in what)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(what), ctypes.addressof(buffer))  # struct sock_fprog
    receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
