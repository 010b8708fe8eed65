"""The kernel's own counts of retransmits, and whether the events add up to them.

What the kernel counts (net/ipv4/tcp_output.c, tcp_timer.c, tcp_input.c), per network namespace:

- RetransSegs: every *segment* that __tcp_retransmit_skb() hands down - data, FIN or SYN, also when sending it then
  fails - and every SYN-ACK that tcp_rtx_synack() sent again. An skb may hold several segments (TSO); an event is one
  skb. Only retransmits that an acknowledgement lets go (kinds "fast", and "rto" while in loss) may hold more than one:
  a timer sends one segment.
- TCPSynRetrans: of these, the SYNs and SYN-ACKs, one each.
- TCPRetransFail: of RetransSegs, those that failed to be sent. An attempt given up earlier is in neither; from Linux
  6.17 it is an event of kind "failed", too.
- TCPLossProbes: tail loss probes, those that sent new data instead of retransmitting included.
- TCPFastRetrans, TCPSlowStartRetrans: of RetransSegs, segments that an acknowledgement let go, outside of loss and in
  it. Kernels that have TCPForwardRetrans count some of the former there.
- TCPTimeouts: retransmission timers that went off. Older kernels leave some of them out.

So is expected, with `events` short for ours of the kinds that say so, and nothing lost:

    RetransSegs    == events but "failed"      + segments beyond the first of an skb + segments that failed to be sent
    TCPSynRetrans  == "syn" + "synack"         + SYNs that failed to be sent
    TCPFastRetrans == "fast"                   + segments beyond the first of an skb
    TCPLossProbes  >= "tlp"                      the rest sent new data
    TCPTimeouts    <= "rto" + "syn" + "synack"   the rest of ours an acknowledgement let go while in loss

"simple" is in RetransSegs and TCPSlowStartRetrans.

The first three are equalities wherever no skb of several segments was retransmitted and no sending failed. reconcile()
judges the first two so: what is missing must not be more than these can explain. Never are there more events than the
kernel counted, if it was read before the probe attached and again after the last event.
"""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

from . import netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Mapping, Optional, Tuple

    Counters = Dict[str, int]
    """The kernel's name of a counter -> its value since the namespace was made."""

TCP = ("RetransSegs",)
TCP_EXT = (
    "TCPFastRetrans",
    "TCPForwardRetrans",
    "TCPLossProbes",
    "TCPRetransFail",
    "TCPSlowStartRetrans",
    "TCPSynRetrans",
    "TCPTimeouts",
)


class Line(NamedTuple):
    """One comparison. name: the kernel's counter; ours: events that must be in it; kernel: its increase, None if the
    namespace is gone; missing: kernel - ours; explained: how many of these may be missing without an event having been;
    agrees: 0 <= missing <= explained, None if that cannot be told."""

    netns: int
    name: str
    ours: int
    kernel: Optional[int]
    missing: Optional[int]
    explained: Optional[int]
    agrees: Optional[bool]


def read() -> Dict[int, Counters]:
    """The counters of every network namespace, by inode. One that cannot be read is left out."""
    found: Dict[int, Counters] = {}
    for namespace in netns.find():
        try:
            found[namespace.inode] = {
                **parse(netns.read(namespace, "snmp"), "Tcp", TCP),
                **parse(netns.read(namespace, "netstat"), "TcpExt", TCP_EXT),
            }
        except OSError:  # gone, or not ours to enter
            continue
    return found


def parse(text: str, table: str, names: Tuple[str, ...]) -> Counters:
    """Counters of one table of /proc/net/snmp or netstat: a line of names, then one of values, both after "Table:".

    Names that this kernel does not have are 0.
    """
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith(table + ":")]
    values = dict(zip(rows[0], rows[1])) if len(rows) > 1 else {}
    return {name: int(values.get(name, 0)) for name in names}


def difference(after: Mapping[int, Counters], before: Mapping[int, Counters]) -> Dict[int, Counters]:
    """The increase of every counter, per namespace of `after`; one that is new began at 0."""
    return {
        inode: {name: value - before.get(inode, {}).get(name, 0) for name, value in counters.items()}
        for inode, counters in after.items()
    }


def reconcile(counts: Mapping[int, Mapping[str, int]], kernel: Mapping[int, Counters], lost: int) -> List[Line]:
    """Holds our events (namespace -> kind -> number) against the increase of the kernel's counters.

    lost: events of all namespaces that did not get through to us; any of them may be missing anywhere.
    """
    lines: List[Line] = []
    for inode in sorted({*counts, *kernel}):
        kinds = counts.get(inode, {})
        events = sum(number for kind, number in kinds.items() if kind != "failed")
        syn, fast = kinds.get("syn", 0) + kinds.get("synack", 0), kinds.get("fast", 0)
        ours = {
            "RetransSegs": events,
            "TCPSynRetrans": syn,
            "TCPFastRetrans": fast,
            "TCPLossProbes": kinds.get("tlp", 0),
        }
        theirs = kernel.get(inode)
        if theirs is None:
            lines += [Line(inode, name, number, None, None, None, None) for name, number in ours.items()]
            continue
        theirs = {**theirs, "TCPFastRetrans": theirs["TCPFastRetrans"] + theirs["TCPForwardRetrans"]}
        failed = theirs["TCPRetransFail"] + lost
        explained = {
            "RetransSegs": failed + beyond_first(kinds, theirs),
            "TCPSynRetrans": failed,
            "TCPFastRetrans": None,
            "TCPLossProbes": None,
        }
        lines += [_line(inode, name, number, theirs[name], explained[name]) for name, number in ours.items()]
        timed, timers = kinds.get("rto", 0) + syn, theirs["TCPTimeouts"]
        within = True if timers - timed <= failed else None  # timers of other purposes are in it on some kernels
        lines.append(Line(inode, "TCPTimeouts", timed, timers, timers - timed, failed, within))
    return lines


def beyond_first(kinds: Mapping[str, int], theirs: Counters) -> int:
    """At most so many segments can have been in one skb with another: TCPFastRetrans and TCPSlowStartRetrans count all
    that an acknowledgement let go, and at least the events that no timer accounts for were its skbs."""
    by_timer = theirs["TCPTimeouts"]
    in_loss = max(0, sum(kinds.get(kind, 0) for kind in ("rto", "simple", "syn")) - by_timer)
    fast = max(0, theirs["TCPFastRetrans"] - kinds.get("fast", 0))
    return fast + max(0, theirs["TCPSlowStartRetrans"] - in_loss)


def _line(inode: int, name: str, ours: int, kernel: int, explained: Optional[int]) -> Line:
    missing = kernel - ours
    agrees = missing >= 0 and (explained is None or missing <= explained)
    return Line(inode, name, ours, kernel, missing, explained, agrees)
