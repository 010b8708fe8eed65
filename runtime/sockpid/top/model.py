"""What `top` counts: retransmits of sockets, and these by owner and by peer. Pure, bounded in memory."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from sockpid.event.text import end, printable
from sockpid.graph.model import KINDS, Starts, Traffic

SCHEMA = 1
NUMBER_OF_KIND = {kind: number for number, kind in enumerate(KINDS)}
LEVELS = ("owners", "sockets", "peers")
HISTORY = 60
"""Intervals whose counts are remembered."""

Event = Mapping[str, Any]


class Owner(NamedTuple):
    """Whose sockets they are. pid None: nobody's that is known; then `name` is the reason, or "kernel"."""

    host: str
    pid: Optional[int]
    start_ns: int
    name: str


class SocketKey(NamedTuple):
    host: str
    netns: int
    local: Tuple[str, int]
    remote: Tuple[str, int]


class Flow:
    """Retransmits of one socket of an owner; of several that are no longer told apart, if key is None. event: the
    last."""

    __slots__ = ("event", "key", "octets", "owner", "traffic")

    def __init__(self, owner: Owner, key: Optional[SocketKey]) -> None:
        self.owner, self.key = owner, key
        self.traffic = Traffic()
        self.octets = 0
        self.event: Event = {}


class Row(NamedTuple):
    """A line to show. per_second: lately, older events counting less; kinds: in the order of graph.model.KINDS; octets:
    bytes sent again; srtt_us: of the latest event that told; sockets, peers: how many; last_ns: the latest event;
    event: that one."""

    key: Any
    title: str
    pid: Optional[int]
    per_second: float
    events: int
    kinds: Tuple[int, ...]
    srtt_us: int
    octets: int
    sockets: int
    peers: int
    last_ns: int
    labels: str
    event: Event

    def text(self) -> str:
        """What a filter looks into."""
        local, remote = (end(self.event[a], self.event[p]) for a, p in (("saddr", "sport"), ("daddr", "dport")))
        return f"{self.title} {self.pid} {self.labels} {local} {remote} {self.event.get('host')}".lower()


class Model:
    """Takes events, tells rows. Counts are exact: `events` is the sum over all rows of a level, and `forgotten`."""

    def __init__(self, max_sockets: int = 8192, decay_seconds: float = 5.0) -> None:
        """max_sockets: beyond that, those that were silent longest are only counted for their owner; as many owners are
        kept. decay_seconds: after which an event counts 1/e in a rate."""
        self.max_sockets, self.decay_ns = max_sockets, decay_seconds * 1e9
        self.events = self.unknown = self.missing = self.forgotten = 0
        """Events; of these, with an owner that is not known; events that a stream says are missing from it; those in no
        row any more."""
        self.last_ns = 0
        self.hosts: Dict[str, int] = {}
        self.history: List[int] = [0]
        """Events per interval, the present one last."""
        self._flows: Dict[Tuple[Owner, Optional[SocketKey]], Flow] = {}
        self._starts = Starts()

    def add(self, event: Event) -> None:
        """Takes an event as documented in docs/events.md, or a gap. Raises KeyError or TypeError for anything else."""
        if "dropped" in event:
            self.missing += int(event["dropped"])
            return
        owner = self._owner(event)
        key = SocketKey(owner.host, event["netns"], (event["saddr"], event["sport"]), (event["daddr"], event["dport"]))
        ts_ns, srtt_us, octets = event["ts_ns"], event["srtt_us"], event.get("end_seq", 0) - event.get("seq", 0)
        flow = self._flows.get((owner, key))
        if flow is None:
            if len(self._flows) >= 2 * self.max_sockets:
                self._fold()
            flow = self._flows[owner, key] = Flow(owner, key)
        flow.traffic.add(NUMBER_OF_KIND.get(event["kind"], len(KINDS) - 1), ts_ns, srtt_us, self.decay_ns)
        flow.octets += octets % (1 << 32) if octets else 0
        flow.event = event
        self.events += 1
        self.unknown += owner.pid is None and owner.name != "kernel"
        self.last_ns = max(self.last_ns, ts_ns)
        self.hosts[owner.host] = self.hosts.get(owner.host, 0) + 1
        self.history[-1] += 1

    def tick(self) -> None:
        """An interval is over."""
        self.history = [*self.history[1 - HISTORY :], 0]

    def rows(self, level: str, now_ns: int, owner: Optional[Owner] = None, peer: Optional[str] = None) -> List[Row]:
        """level: of LEVELS; owner, peer: only of this one. In no order."""
        grouped: Dict[Any, List[Flow]] = {}
        for flow in self._flows.values():
            if owner is not None and flow.owner != owner:
                continue
            if peer is not None and (flow.key is None or flow.key.remote[0] != peer):
                continue
            if flow.key is None and level != "owners":
                continue
            group: Any = flow.owner
            if level == "sockets":
                group = flow.key
            elif level == "peers" and flow.key is not None:
                group = flow.key.remote[0]
            grouped.setdefault(group, []).append(flow)
        return [self._row(key, level, flows, now_ns) for key, flows in grouped.items()]

    def _row(self, key: Any, level: str, flows: List[Flow], now_ns: int) -> Row:
        latest = max(flows, key=lambda flow: flow.traffic.last_ns)
        traffic = latest.traffic
        if len(flows) > 1:
            traffic = Traffic()
            for flow in flows:
                traffic.merge(flow.traffic, self.decay_ns)
        title = name_of(latest.owner, latest.event) if level != "peers" else key
        return Row(
            key,
            title,
            latest.owner.pid if level != "peers" else None,
            traffic.weight_at(now_ns, self.decay_ns) / (self.decay_ns / 1e9),
            traffic.events,
            traffic.kinds,
            traffic.srtt_us,
            sum(flow.octets for flow in flows),
            len({flow.key for flow in flows if flow.key is not None}),
            len({flow.key.remote[0] for flow in flows if flow.key is not None}),
            traffic.last_ns,
            labels(latest.event) if level != "peers" else "",
            latest.event,
        )

    def _owner(self, event: Event) -> Owner:
        host, pid = event.get("host") or "", event["pid"]
        if pid is not None:
            return Owner(host, pid, self._starts.one(host, pid, event["start_ns"] or 0), "")
        return Owner(host, None, 0, "kernel" if event["how"] == "kernel" else event["reason"] or "unknown")

    def _fold(self) -> None:
        """Makes room: of the sockets that were silent longest only their owners' sums stay, and of those the latest."""
        kept = sorted(self._flows.values(), key=lambda flow: flow.traffic.last_ns, reverse=True)
        self._flows = {}
        for number, flow in enumerate(kept):
            key = flow.key if number < self.max_sockets else None
            known = self._flows.get((flow.owner, key))
            if known is not None:
                known.traffic.merge(flow.traffic, self.decay_ns)
                known.octets += flow.octets
            elif key is not None or len(self._flows) < self.max_sockets * 3 // 2:
                flow.key = key
                self._flows[flow.owner, key] = flow
            else:
                self.forgotten += flow.traffic.events


def name_of(owner: Owner, event: Event) -> str:
    """The process's name as last told."""
    if owner.pid is None:
        return "(kernel)" if owner.name == "kernel" else f"({owner.name})"
    name = printable(event["comm"] or "?")
    return name + (" (exited)" if event.get("exited") else "")


def labels(event: Event) -> str:
    """What tells owners of one name apart: chosen variables, unit or container."""
    found = event.get("labels") or {}
    words = [f"{name}={printable(value)}" for name, value in (found.get("env") or {}).items() if value is not None]
    if found.get("container_id"):
        words.append(found["container_id"][:12])
    elif found.get("unit"):
        words.append(printable(found["unit"]))
    return " ".join(words)


def document(rows: Iterable[Row], level: str, model: Model, now_ns: int, interval: float) -> Dict[str, Any]:
    """A snapshot as a JSON object: one line of `sockpid top --json`. interval: seconds between two of them."""
    return {
        "schema": SCHEMA,
        "ts_ns": now_ns,
        "interval": interval,
        "events": model.events,
        "per_second": round(model.history[-2] / interval, 3) if len(model.history) > 1 else 0.0,
        "unknown": model.unknown,
        "missing": model.missing,
        level: [_row_document(row, level) for row in rows],
    }


def _row_document(row: Row, level: str) -> Dict[str, Any]:
    told: Dict[str, Any] = {"per_second": round(row.per_second, 3), "events": row.events}
    told["kinds"] = {kind: count for kind, count in zip(KINDS, row.kinds) if count}
    told.update(srtt_us=row.srtt_us, bytes=row.octets, sockets=row.sockets, peers=row.peers, last_ns=row.last_ns)
    event = row.event
    if level == "peers":
        return {"daddr": row.key, **told}
    told.update({name: event.get(name) for name in ("host", "pid", "start_ns", "comm", "how", "reason", "labels")})
    if level == "sockets":
        names = ("family", "netns", "saddr", "sport", "daddr", "dport", "state")
        told.update({name: event.get(name) for name in names})
    return told
