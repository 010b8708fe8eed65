"""Records of the ring buffer as values, and values as JSON. Pure: the clock's offset is the caller's to know.

The record's layout is `struct event` of bpf_bytecode/sockpid.h; a test holds the formats here against the image.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Dict, NamedTuple, Optional, Union

from . import uapi

SCHEMA = 1

HOW = {0: None, 1: "connect", 2: "accept", 3: "send", 4: "recv", 5: "listen", 6: "seed", 7: "kernel"}
"""enum how: how an owner was learnt."""

FAMILY = {2: "inet", 10: "inet6"}

TUPLE = "IHHHH16s16s"
PROCESS = "QQQQII16s"
OWNER = "Q" + PROCESS + PROCESS + TUPLE + "I"
EVENT = "=QQQ" + OWNER + TUPLE + "iBBB5x"
EVENT_SIZE = struct.calcsize(EVENT)

Json = Union[str, int, None]


class Tuple(NamedTuple):
    """A socket's name: network namespace inode, family ("inet", "inet6"), ports, addresses as text.

    saddr and sport are the local end. A v4-mapped IPv6 socket is an inet one here.
    """

    netns: int
    family: str
    sport: int
    dport: int
    saddr: str
    daddr: str


class Process(NamedTuple):
    """A process that used the socket: ids, start (CLOCK_BOOTTIME ns), when (CLOCK_MONOTONIC ns), how, name."""

    pid: int
    tid: int
    start_ns: int
    when_ns: int
    cgroup_id: int
    how: Optional[str]
    flags: int
    comm: str


class Event(NamedTuple):
    """One retransmit. owner is None when it is not known, and reason then says why.

    ts_ns is CLOCK_MONOTONIC. interrupted_pid is the process that the kernel happened to run: what a tool prints that
    asks for the current process. err is 0 or the negative errno of an attempt that failed.
    """

    ts_ns: int
    kind: str
    tuple: Tuple
    state: str
    owner: Optional[Process]
    first: Optional[Process]
    changes: int
    interrupted_pid: int
    err: int
    ca_state: int
    pending: int

    def json(self, realtime_offset: int, offsets: str, reason: Optional[str]) -> Dict[str, Json]:
        """The documented object. realtime_offset is CLOCK_REALTIME - CLOCK_MONOTONIC in ns; offsets their origin."""
        t, owner = self.tuple, self.owner
        kernel = owner is not None and owner.how == "kernel"
        named = None if kernel else owner
        return {
            "schema": SCHEMA,
            "ts_ns": self.ts_ns + realtime_offset,
            "kind": self.kind,
            "family": t.family,
            "saddr": t.saddr,
            "sport": t.sport,
            "daddr": t.daddr,
            "dport": t.dport,
            "netns": t.netns,
            "state": self.state,
            "pid": named.pid if named else None,
            "tid": named.tid if named else None,
            "comm": named.comm if named else None,
            "start_ns": named.start_ns if named else None,
            "how": owner.how if owner else None,
            "age_ns": self.ts_ns - owner.when_ns if owner else None,
            "reason": None if owner else reason,
            "interrupted_pid": self.interrupted_pid,
            "ambiguous": 1 + self.changes if named else None,
            "offsets": offsets,
        }


def decode(record: bytes) -> Event:
    """Decodes one record. Raises ValueError if it is shorter than struct event."""
    if len(record) < EVENT_SIZE:
        raise ValueError(f"event of {len(record)} bytes, {EVENT_SIZE} expected")
    f = struct.unpack_from(EVENT, record)
    err, state, ca_state, pending = f[33:37]
    return Event(
        ts_ns=f[0],
        kind=kind(err, state, ca_state, pending),
        tuple=_tuple(*f[26:33]),
        state=uapi.TCP_STATES[state - 1] if 0 < state <= len(uapi.TCP_STATES) else f"state-{state}",
        owner=process(*f[4:11]),
        first=process(*f[11:18]),
        changes=f[25],
        interrupted_pid=f[2] >> 32,
        err=err,
        ca_state=ca_state,
        pending=pending,
    )


def pack_tuple(value: Tuple) -> bytes:
    """The struct socket_tuple of a value: the key of socket_to_pid."""
    family = {name: number for number, name in FAMILY.items()}[value.family]
    saddr, daddr = (inet_pton(family, text) for text in (value.saddr, value.daddr))
    return struct.pack("=" + TUPLE, value.netns, family, value.sport, value.dport, 0, saddr, daddr)


def unpack_process(value: bytes) -> Optional[Process]:
    """The value of socket_to_pid."""
    return process(*struct.unpack_from("=" + PROCESS, value))


def kind(err: int, state: int, ca_state: int, pending: int) -> str:
    """What made the kernel retransmit: "rto", "fast", "tlp", "syn", "failed", or "other" where the state does not tell.

    tcp_retransmit_timer() enters loss before it sends; recovery is entered by duplicate ACKs; the loss probe runs with
    its timer still noted in icsk_pending, outside of both (net/ipv4/tcp_timer.c, tcp_input.c, tcp_output.c).
    """
    if err:
        return "failed"
    if state == uapi.TCP_SYN_SENT:
        return "syn"
    if ca_state == uapi.TCP_CA_Loss:
        return "rto"
    if ca_state == uapi.TCP_CA_Recovery:
        return "fast"
    if pending == uapi.ICSK_TIME_LOSS_PROBE:
        return "tlp"
    return "other"


def process(
    pid_tgid: int, start_ns: int, when_ns: int, cgroup_id: int, how: int, flags: int, comm: bytes
) -> Optional[Process]:
    """A struct process; None if it is all zero."""
    if not how:
        return None
    name = comm.split(b"\0", 1)[0].decode("utf-8", "replace")
    return Process(pid_tgid >> 32, pid_tgid & 0xFFFFFFFF, start_ns, when_ns, cgroup_id, HOW.get(how), flags, name)


def _tuple(netns: int, family: int, sport: int, dport: int, _zero: int, saddr: bytes, daddr: bytes) -> Tuple:
    name = FAMILY.get(family, f"family-{family}")
    return Tuple(netns, name, sport, dport, address(family, saddr), address(family, daddr))


def address(family: int, raw: bytes) -> str:
    """Text of an address in network order: dotted for IPv4, RFC 5952 for IPv6."""
    return str(ipaddress.IPv6Address(raw) if family == 10 else ipaddress.IPv4Address(raw[:4]))


def inet_pton(family: int, text: str) -> bytes:
    """The 16 bytes that hold an address; an IPv4 address is the first four."""
    raw = ipaddress.IPv6Address(text) if family == 10 else ipaddress.IPv4Address(text)
    return raw.packed.ljust(16, b"\0")
