"""An event of a socket of our own, held against all that is known of that socket and of us."""

from __future__ import annotations

import os

from sockpid import uapi
from sockpid.event import event
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel, proc
from sockpid.subjects.deaf import MPTCP, Info, Pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

STABLE_FLAGS = 0x00600140  # PF_RANDOMIZE | PF_KTHREAD | PF_SUPERPRIV | PF_FORKNOEXEC: these do not come and go


def expected() -> Dict[str, object]:
    """What an event of ours must say of us, as far as /proc tells."""
    known: Dict[str, object] = {
        "comm": kernel.comm(),
        "flags": kernel.task_flags() & STABLE_FLAGS,
        "start_ticks": kernel.process_start_ticks(),
    }
    if proc.in_initial_pid_namespace():  # elsewhere our pid is not what the kernel calls us
        known["pid"] = os.getpid()
    return known


def compare(
    pair: Pair,
    seen: event.Event,
    info: Info,
    known: Dict[str, object],
    crowded: bool = False,
    connects: bool = False,
    marked: bool = True,
) -> List[str]:
    """Every field of an event that differs from what is known, as "field: got, expected".

    crowded: the maps have no room for all sockets, so that the owner may have been evicted. connects: a hook is
    attached that learns who connects. marked: undo_marker was read.
    """
    of_mptcp = pair.family == MPTCP
    pairs: List[Any] = [(name, getattr(seen.tuple, name), getattr(pair.tuple, name)) for name in SocketTuple._fields]
    owner = seen.owner
    if owner is not None:
        got: Dict[str, object] = {
            "pid": owner.pid,
            "comm": owner.comm,
            "flags": owner.flags & STABLE_FLAGS,
            "start_ticks": owner.start_ns * os.sysconf("SC_CLK_TCK") // 10**9 + kernel.time_namespace_ticks(),
        }
        pairs += [(name, got[name], value) for name, value in known.items()]
        pairs += [("found", seen.found, "mptcp" if of_mptcp else "sock"), ("users", seen.users, 1)]
        pairs.append(("lent", seen.lent, False))
        if connects and not crowded:
            pairs.append(("opener", seen.first.how if seen.first is not None else None, "connect"))
    elif not crowded:
        pairs.append(("owner", None, known.get("pid", "this process")))
    pairs += [
        ("inode", seen.inode, pair.inode()),
        ("total_retrans", seen.total_retrans, info.total_retrans),
        ("kern", seen.kern, of_mptcp),
        ("ulp", seen.ulp, "mptcp" if of_mptcp else None),
    ]
    if info.rtt is not None:
        pairs += [("srtt_us", seen.srtt_us, info.rtt), ("snd_cwnd", seen.snd_cwnd, info.snd_cwnd)]
    if info.ca_state is not None:
        pairs.append(("ca_state", seen.ca_state, info.ca_state))
    differ = [f"{name}: {a!r}, expected {b!r}" for name, a, b in pairs if a != b]
    if not 1 <= (seen.end_seq - seen.seq) % 2**32 <= 3:  # two bytes were sent, and the FIN
        differ.append(f"seq, end_seq: {seen.seq}, {seen.end_seq}, expected 1 to 3 apart")
    # tcp_retransmit_timer() counts a timeout after or, in some versions, before it retransmits.
    if (
        info.retransmits is not None
        and seen.kind == "rto"
        and seen.retransmits not in (info.retransmits, info.retransmits - 1)
    ):
        differ.append(f"retransmits: {seen.retransmits}, expected {info.retransmits - 1}")
    if seen.state not in ("ESTABLISHED", "FIN_WAIT1"):
        differ.append(f"state: {seen.state}, expected ESTABLISHED or FIN_WAIT1")
    return differ + _cause(seen, marked)


def _cause(seen: event.Event, marked: bool) -> List[str]:
    """What must hold together in what made the kernel retransmit: a probe of the last segment, or a timeout."""
    differ = []
    if seen.kind not in ("tlp", "rto"):
        differ.append(
            f"kind: {seen.kind} (icsk_ca_state {seen.ca_state}, icsk_pending {seen.pending}), expected tlp or rto"
        )
    # The timer that has run out is noted no more; loss is entered before, which notes what a late answer would undo to.
    pending, undo = (uapi.ICSK_TIME_LOSS_PROBE, 0) if seen.kind == "tlp" else (0, seen.seq)
    if seen.pending != pending:
        differ.append(f"kind: {seen.kind} (icsk_pending {seen.pending}), expected icsk_pending {pending}")
    if seen.record is not None:
        (marker,) = event.UNDO_MARKER.unpack_from(seen.record, event.UNDO_MARKER_AT)
        if marked and marker != undo:
            differ.append(f"undo_marker: {marker}, expected {undo}")
        (owned,) = event.UNDO_MARKER.unpack_from(seen.record, event.OWNED_AT)
        if owned:
            differ.append(f"owned: {owned}, expected 0 where a timer has the socket")
    return differ
