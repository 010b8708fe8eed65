"""Rows of the counts map, which the programs sum up in, as values and as JSON. Pure."""

from __future__ import annotations

import struct
from typing import Any, Dict, NamedTuple

from .event import text
from .socket_tuple import TUPLE, SocketTuple, of_fields

KEY = "=" + TUPLE + "QQII16s"
"""struct count_key of bpf_bytecode/sockpid.h."""


class Count(NamedTuple):
    """One row of the counts map: the socket with its inode, its owner's process id (0: unknown), start (ns) and name,
    and the events.

    holders: how many processes had it open, where the owner was found by that; else 0.
    """

    tuple: SocketTuple
    inode: int
    pid: int
    start_ns: int
    comm: str
    events: int
    holders: int = 0


def decoded(key: bytes, value: bytes) -> Count:
    """A row as it lies in the map."""
    f = struct.unpack_from(KEY, key)
    return Count(of_fields(*f[:8]), f[9], f[10], f[8], text(f[12]), struct.unpack("=Q", value)[0])


def document(row: Count) -> Dict[str, Any]:
    """A row as `run --count --json` has it."""
    told: Dict[str, Any] = dict(zip(row.tuple._fields, row.tuple))
    known = bool(row.pid)
    told.update(pid=row.pid if known else None, comm=row.comm if known else None, events=row.events)
    told["start_ns"] = row.start_ns if known else None
    told["ambiguous"] = row.holders or None
    return told
