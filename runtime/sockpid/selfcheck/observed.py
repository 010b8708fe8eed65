"""Which offsets a self-check proves: the kernel fields behind each value that it holds against the truth."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence, Set, Tuple

from sockpid.arch import Arch
from sockpid.image.image import PT_REGS
from sockpid.subjects.deaf import FAMILIES, MPTCP
from sockpid.table.layout import Layout, Struct

from .selfcheck import SYNACK, Result

_LEARNT = ("owner", "pid", "opener")
_V4, _V6, _ALL = frozenset(("inet",)), frozenset(("inet6", "mapped")), frozenset(FAMILIES)
_MPTCP, _SYNACK = frozenset((MPTCP,)), frozenset((SYNACK,))
FORGOTTEN = "the destroyed socket still has an owner"

SEEN_AS: Mapping[str, Tuple[str, ...]] = {
    "struct inet_connection_sock.icsk_ca_state": ("kind", "ca_state"),
    "struct inet_connection_sock.icsk_pending": ("kind",),
    "struct inet_connection_sock.icsk_retransmits": ("retransmits",),
    "struct inet_connection_sock.icsk_ulp_data": ("found", "owner"),
    "struct inet_connection_sock.icsk_ulp_ops": ("ulp",),
    "struct inet_sock.inet_sport": (FORGOTTEN,),
    "struct mptcp_subflow_context.conn": ("found", "owner"),
    "struct net.ns.inum": ("netns",),
    "struct request_sock.__req_common": ("sport", "dport", "saddr", "daddr"),
    "struct sk_buff.cb": ("seq, end_seq", "seq"),
    "struct sock.__sk_common.skc_bound_dev_if": ("ifindex",),
    "struct sock.__sk_common.skc_daddr": ("daddr",),
    "struct sock.__sk_common.skc_dport": ("dport",),
    "struct sock.__sk_common.skc_family": ("family",),
    "struct sock.__sk_common.skc_net.net": ("netns",),
    "struct sock.__sk_common.skc_num": ("sport",),
    "struct sock.__sk_common.skc_rcv_saddr": ("saddr",),
    "struct sock.__sk_common.skc_state": ("state",),
    "struct sock.__sk_common.skc_v6_daddr": ("daddr",),
    "struct sock.__sk_common.skc_v6_rcv_saddr": ("saddr",),
    "struct sock.sk_allocation": ("lent",),
    "struct sock.sk_kern_sock": ("kern",),
    "struct sock.sk_lock.owned": (*_LEARNT, "owned"),
    "struct sock.sk_protocol": _LEARNT,
    "struct sock.sk_socket": ("inode",),
    "struct sock.sk_type": _LEARNT,
    "struct sock.sk_user_data": ("lent",),
    "struct socket_alloc.vfs_inode.i_ino": ("inode",),
    "struct task_struct.comm": ("comm",),
    "struct task_struct.flags": ("flags",),
    "struct task_struct.group_leader": ("comm", "start_ticks"),
    "struct task_struct.real_start_time": ("start_ticks",),
    "struct task_struct.start_boottime": ("start_ticks",),
    "struct tcp_skb_cb.end_seq": ("seq, end_seq", "seq"),
    "struct tcp_skb_cb.seq": ("seq, end_seq", "seq"),
    "struct tcp_sock.snd_cwnd": ("snd_cwnd",),
    "struct tcp_sock.srtt_us": ("srtt_us",),
    "struct tcp_sock.total_retrans": ("total_retrans",),
    "struct tcp_sock.undo_marker": ("undo_marker",),
    "struct tcp_ulp_ops.name": ("ulp",),
}
"""Kernel field -> the names in selfcheck.compare() of what was read through it: a wrong offset shows in one of them."""

UNSEEN: Mapping[str, str] = {
    "struct socket.sk": "a second way to what is found already: what it leads to is no socket's, or the same",
}
"""Kernel field -> why a self-check need not prove it."""

SHOWN_BY_ZERO = frozenset((*UNSEEN, "struct sock.sk_user_data"))
"""Kernel fields of which sockets of our own show no other value than 0, or none: others may look the same."""

_FAMILIES = {
    **dict.fromkeys(("struct inet_connection_sock.icsk_ulp_data", "struct mptcp_subflow_context.conn"), _MPTCP),
    **dict.fromkeys(("struct inet_connection_sock.icsk_ulp_ops", "struct tcp_ulp_ops.name"), _MPTCP),
    "struct sock.sk_kern_sock": _MPTCP | _ALL,
    "struct request_sock.__req_common": _SYNACK,
    "struct sock.__sk_common.skc_daddr": _V4,
    "struct sock.__sk_common.skc_rcv_saddr": _V4,
    "struct sock.__sk_common.skc_v6_daddr": _V6,
    "struct sock.__sk_common.skc_v6_rcv_saddr": _V6,
}


def fields(
    arch: Arch, layout: Layout, results: Sequence[Result], mechanisms: Mapping[str, Optional[str]]
) -> Dict[str, Any]:
    """What `sockpid selftest --json` says of every field that was read: "struct sock.sk_protocol" -> an object.

    It has `place` (sockpid.layout.Field), which was used on the live kernel; `seen_as`, the values that came through
    it; `ok`: all of them were right; `wrong`: those that were not, as "family: name: got, expected".
    """
    ran = [result for result in results if result.events]
    observed: Dict[str, Any] = {}
    for name, seen_as in {**SEEN_AS, **_registers(arch, mechanisms)}.items():
        type_name, _, path = name.partition(".")
        row = layout.get(type_name)
        place = row.fields.get(path) if isinstance(row, Struct) else None
        families = [result for result in ran if result.family in _FAMILIES.get(name, _ALL)]
        if place is None or not families:
            continue
        wrong = [f"{r.family}: {line}" for r in families for line in r.mismatches if line.partition(": ")[0] in seen_as]
        observed[name] = {"place": place._asdict(), "seen_as": list(seen_as), "ok": not wrong, "wrong": wrong}
    return observed


def unproven(layout: Layout, told: Mapping[str, Any]) -> Dict[str, str]:
    """The fields that the kernel has, that programs read, and that no value was seen through, each with the reason.

    told: what fields() says.
    """
    left: Dict[str, str] = {}
    for name in (*SEEN_AS, *UNSEEN):
        type_name, _, path = name.partition(".")
        row = layout.get(type_name)
        if name not in told and isinstance(row, Struct) and row.fields.get(path) is not None:
            of = _FAMILIES.get(name, _ALL)
            left[name] = UNSEEN.get(name) or f"nothing was seen of {' or '.join(sorted(of))} that shows it"
    return left


def _registers(arch: Arch, mechanisms: Mapping[str, Optional[str]]) -> Dict[str, Tuple[str, ...]]:
    """Argument registers that were read: by every kprobe the first, the socket; at a retransmit the segment too."""
    kprobes: Set[str] = {hook for hook, link in mechanisms.items() if (link or "").startswith("kprobe")}
    seen: Dict[str, Tuple[str, ...]] = {}
    if kprobes & {"retransmit", "connect", "send"}:
        seen[f"{PT_REGS}.{arch.args[0]}"] = _LEARNT
    if "retransmit" in kprobes:
        seen[f"{PT_REGS}.{arch.args[1]}"] = ("seq, end_seq", "seq")
    return seen
