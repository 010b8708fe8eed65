"""Records of the ring buffer as values, and values as JSON. Pure: the clock's offset is the caller's to know.

The record's layout is `struct event` of bpf_bytecode/sockpid.h; a test holds the formats here against the image.
"""

from __future__ import annotations

import struct

from sockpid import uapi
from sockpid.namedtuple import NamedTuple

from .socket_tuple import TUPLE, SocketTuple, of_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Union

    Json = Union[str, int, bool, None, List[Any], Dict[str, Any]]

SCHEMA = 1

HOW = {0: None, 1: "connect", 2: "accept", 3: "send", 4: "recv", 5: "listen", 6: "seed", 7: "kernel", 8: "shutdown"}
"""enum how: how an owner was learnt."""

FOUND = {0: None, 1: "sock", 2: "mptcp"}
"""enum found: where the probe found the owner."""

PROCESS = "QQQQII16s"
ENTRY = PROCESS + "QQII8x"
"""struct socket_owner as it stands in a record: the process, sk, inode, users, flags; the seal is that of the whole."""
OWNER = ENTRY + "QII16s" + TUPLE + "48x8x"
"""struct owner: the entry, the opener (start_ns, tgid, how, comm), the tuple, hashes of users, the seal."""
EVENT = "=QQQ" + OWNER + TUPLE + "QiIIIIII4xBBBBBBBB16s"
EVENT_SIZE = struct.calcsize(EVENT)
EXEC_NAME = "=QQ16s"
EXITED = "=QII"

INODE = struct.Struct("=Q")
INODE_AT = EVENT_SIZE - 64
UNDO_MARKER = struct.Struct("=I")
UNDO_MARKER_AT, OWNED_AT = EVENT_SIZE - 32, EVENT_SIZE - 28
FOUND_AT = EVENT_SIZE - 23
"""Where in a record the inode is, undo_marker and owned, and the byte that tells whether the probe found an owner."""

OWNER_INODE_AT = struct.calcsize("=" + PROCESS + "Q")
"""And in an owner."""

OWNER_LATE, OWNER_LENT = 1, 4

EVENT_SYNACK = 1


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


class Opener(NamedTuple):
    """The process that was seen to use a socket first: id, start (CLOCK_BOOTTIME ns), how, name as it was then."""

    pid: int
    start_ns: int
    how: Optional[str]
    comm: str


class Executed(NamedTuple):
    """A program was executed: start of the process (CLOCK_BOOTTIME ns), when (CLOCK_MONOTONIC ns), its name then."""

    start_ns: int
    when_ns: int
    comm: str


FIELDS = (
    "ts_ns", "sk", "kind", "tuple", "state", "owner", "first", "users", "late", "lent", "found", "interrupted_pid",
    "inode", "err", "seq", "end_seq", "srtt_us", "snd_cwnd", "total_retrans", "retransmits", "ca_state", "pending",
    "kern", "stale", "ulp",
)  # fmt: skip
"""Of an Event."""


class Event:
    """One retransmit. owner is None when it is not known.

    ts_ns is CLOCK_MONOTONIC; sk the address of the struct sock. owner is the process that used the socket last, first
    the one that did so first; users is how many different ones there were. late: the socket was not seen to begin, so
    that first need not be its opener. lent: the kernel puts other sockets' data into it, so that owner need not have
    it. found: "sock", "mptcp" (through the MPTCP socket above), or as the reader found it afterwards. stale: an owner
    was there, of an earlier socket at the same address. interrupted_pid is the process that the kernel happened to run:
    what a tool prints that asks for the current process. inode: as in /proc/PID/fd, 0 if no process holds the socket
    any more. err is 0 or the negative errno of an attempt that failed. seq, end_seq: the segment's sequence numbers,
    the latter behind its last. srtt_us: smoothed round trip time in microseconds; snd_cwnd: segments; total_retrans:
    segments retransmitted in the socket's life; retransmits: timeouts in a row before this one. kern: the kernel opened
    the socket for itself. ulp: "tls", "mptcp", or None for plain TCP.

    record: what it was decoded from, None if it is no record's any more. A field is decoded when it is first asked for:
    who only needs the record pays for no more.
    """

    __slots__ = (*FIELDS, "record")

    ts_ns: int
    sk: int
    kind: str
    tuple: SocketTuple
    state: str
    owner: Optional[Process]
    first: Optional[Opener]
    users: int
    late: bool
    lent: bool
    found: Optional[str]
    interrupted_pid: int
    inode: int
    err: int
    seq: int
    end_seq: int
    srtt_us: int
    snd_cwnd: int
    total_retrans: int
    retransmits: int
    ca_state: int
    pending: int
    kern: bool
    stale: bool
    ulp: Optional[str]
    record: Optional[bytes]

    def __init__(self, record: Optional[bytes] = None, **fields: Any) -> None:
        """Of a record, or of all the fields."""
        self.record = record
        for name, value in fields.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in FIELDS or self.record is None:
            raise AttributeError(name)
        for each, value in _fields(self.record).items():
            setattr(self, each, value)
        return getattr(self, name)

    def _replace(self, **changes: Any) -> Event:
        """Another event that differs in some fields, as that of a named tuple."""
        return Event(**{**{name: getattr(self, name) for name in FIELDS}, **changes})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and all(getattr(self, name) == getattr(other, name) for name in FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Event({', '.join(f'{name}={getattr(self, name)!r}' for name in FIELDS)})"

    def json(self, realtime_offset: int, offsets: str, reason: Optional[str]) -> Dict[str, Json]:
        """The documented object. realtime_offset is CLOCK_REALTIME - CLOCK_MONOTONIC in ns; offsets their origin.

        reason is why the owner is unknown, where it is.
        """
        t, owner = self.tuple, self.owner
        named = owner if owner is not None and owner.how != "kernel" else None
        first = self.first if named and not self.late else None
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
            "ifindex": t.ifindex,
            "state": self.state,
            "pid": named.pid if named else None,
            "tid": named.tid if named else None,
            "comm": named.comm if named else None,
            "start_ns": named.start_ns if named else None,
            "how": owner.how if owner else None,
            "age_ns": max(0, self.ts_ns - owner.when_ns) if owner else None,
            "reason": None if owner else reason,
            "interrupted_pid": self.interrupted_pid,
            "ambiguous": max(self.users, 1) if named else None,
            "certain": None,
            "doubt": None,
            "offsets": offsets,
            "found": self.found,
            "opener_pid": first.pid if first else None,
            "opener_comm": first.comm if first else None,
            "opener_how": first.how if first else None,
            "cgroup_id": named.cgroup_id if named else None,
            "inode": self.inode,
            "err": self.err,
            "seq": self.seq,
            "end_seq": self.end_seq,
            "srtt_us": self.srtt_us,
            "snd_cwnd": self.snd_cwnd,
            "total_retrans": self.total_retrans,
            "retransmits": self.retransmits,
            "ulp": self.ulp,
        }


def decode(record: bytes) -> Event:
    """Decodes one record. Raises ValueError if it is shorter than struct event."""
    if len(record) < EVENT_SIZE:
        raise ValueError(f"event of {len(record)} bytes, {EVENT_SIZE} expected")
    return Event(record)


def _fields(record: bytes) -> Dict[str, Any]:
    f = struct.unpack_from(EVENT, record)
    users, flags, first_start, first_tgid, first_how, first_comm = f[12:18]
    (
        inode, err, seq, end_seq, srtt, cwnd, total, undo, event_type, found, state, ca_state, pending, again, kern,
        stale, ulp,
    ) = f[34:]  # fmt: skip
    return {
        "ts_ns": f[0],
        "sk": f[1],
        "kind": "synack" if event_type == EVENT_SYNACK else kind(err, state, ca_state, pending, undo),
        "tuple": of_fields(*f[26:34]),
        "state": uapi.TCP_STATES[state - 1] if 0 < state <= len(uapi.TCP_STATES) else f"state-{state}",
        "owner": process(*f[3:10]),
        "first": Opener(first_tgid, first_start, HOW.get(first_how), text(first_comm)) if first_how else None,
        "users": users,
        "late": bool(flags & OWNER_LATE),
        "lent": bool(flags & OWNER_LENT),
        "found": FOUND.get(found),
        "interrupted_pid": f[2] >> 32,
        "inode": inode,
        "err": err,
        "seq": seq,
        "end_seq": end_seq,
        "srtt_us": srtt >> 3,
        "snd_cwnd": cwnd,
        "total_retrans": total,
        "retransmits": again,
        "ca_state": ca_state,
        "pending": pending,
        "kern": bool(kern),
        "stale": bool(stale),
        "ulp": text(ulp) or None,
    }


def kind(err: int, state: int, ca_state: int, pending: int, undo_marker: int) -> str:
    """What made the kernel retransmit: "rto", "fast", "tlp", "syn", "simple", "failed", or "other" where the state does
    not tell.

    tcp_retransmit_timer() enters loss before it sends; recovery is entered by duplicate ACKs; the loss probe runs with
    its timer still noted in icsk_pending, outside of both (net/ipv4/tcp_timer.c, tcp_input.c, tcp_output.c). A packet
    that was too big for the path, and data in a SYN that was not taken, are sent again by tcp_simple_retransmit(),
    later tcp_non_congestion_loss_retransmit(): it enters loss, too, but notes nothing that a late acknowledgement could
    undo.
    """
    if err:
        return "failed"
    if state == uapi.TCP_SYN_SENT:
        return "syn"
    if ca_state == uapi.TCP_CA_Loss:
        return "rto" if undo_marker or not pending else "simple"
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
    return Process(pid_tgid >> 32, pid_tgid & 0xFFFFFFFF, start_ns, when_ns, cgroup_id, HOW.get(how), flags, text(comm))


def text(raw: bytes) -> str:
    """A name that the kernel ends with a zero byte."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
