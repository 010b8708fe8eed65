"""What the graph remembers."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

MOST_PORTS = 8
"""Of an edge."""

KINDS = ("rto", "fast", "tlp", "syn", "synack", "failed", "other")
_KIND_BITS = 48
_KIND_MASK = (1 << _KIND_BITS) - 1
_KIND_SHIFTS = range(0, _KIND_BITS * len(KINDS), _KIND_BITS)
_ONE_OF_KIND = tuple([1 << shift for shift in _KIND_SHIFTS])


class Node(NamedTuple):
    """One who talks. kind: "process"; "unknown" (an owner that is not known, on a host that is), "kernel" (likewise),
    or "address" (a remote end of which no host has told anything)."""

    kind: str
    where: str
    """The host; of an "address", that."""
    pid: int = 0
    start_ns: int = 0


class Starts:
    """When processes started, each told one way: exactly, by the probe, or to the clock tick, by /proc, it is one
    process. Which of the two is told first stays."""

    TICK_NS = 10_000_000
    """USER_HZ, in which /proc tells times, is 100 on all that sockpid runs on."""

    def __init__(self, most: int = 65536) -> None:
        """most: so many are remembered; then all are forgotten."""
        self._most = most
        self._known: Dict[Tuple[str, int, int], int] = {}

    def one(self, host: str, pid: int, start_ns: int) -> int:
        place = host, pid, start_ns // self.TICK_NS
        known = self._known.get(place)
        if known is None:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[place] = start_ns
            return start_ns
        is_rounded = start_ns % self.TICK_NS == 0 or known % self.TICK_NS == 0
        return known if is_rounded else start_ns


class Process:
    """What is known of a process. comm and labels: as last told."""

    __slots__ = ("comm", "labels", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.comm: Optional[str] = None
        self.labels: Mapping[str, Any] = {}

    def named_labels(self) -> Iterator[Tuple[str, str]]:
        """Those that tell processes apart, each with the name by which events know it: ("env.RANK", "3")."""
        environ = self.labels.get("env")
        for name, value in environ.items() if isinstance(environ, dict) else ():
            if value is not None:
                yield f"env.{name}", value
        for name, value in self.labels.items():
            if isinstance(value, str) and name != "reason":
                yield name, value


class Traffic:
    """Retransmits in one direction. srtt_us: latest that was not 0; srtt_most: the greatest. weight: events, each
    counting less the older it is, as of last_ns."""

    __slots__ = ("_kinds", "events", "first_ns", "last_ns", "srtt_most", "srtt_us", "weight")

    def __init__(self) -> None:
        self.events = self.first_ns = self.last_ns = self.srtt_us = self.srtt_most = 0
        self.weight = 0.0
        # One number, 48 bits of it for each of KINDS: there may be a hundred thousand of these, and lists cost more.
        self._kinds = 0

    @property
    def kinds(self) -> Tuple[int, ...]:
        """Counts in the order of KINDS."""
        return tuple([self._kinds >> shift & _KIND_MASK for shift in _KIND_SHIFTS])

    def add(self, kind: int, ts_ns: int, srtt_us: int, decay_ns: float) -> None:
        """kind: a place in KINDS. decay_ns: time after which an event counts 1/e."""
        if not self.events:
            self.first_ns = self.last_ns = ts_ns
        self.events += 1
        self._kinds += _ONE_OF_KIND[kind]
        elapsed = ts_ns - self.last_ns
        if elapsed >= 0:
            self.weight = self.weight * math.exp(-elapsed / decay_ns) + 1.0
            self.last_ns = ts_ns
            if srtt_us:
                self.srtt_us = srtt_us
        else:  # hosts' streams are not in step
            self.weight += math.exp(elapsed / decay_ns)
            self.first_ns = min(self.first_ns, ts_ns)
        self.srtt_most = max(self.srtt_most, srtt_us)

    def merge(self, other: Traffic, decay_ns: float) -> None:
        if not other.events:
            return
        if not self.events:
            self.first_ns, self.last_ns, self.weight = other.first_ns, other.last_ns, other.weight
            self.srtt_us = other.srtt_us
        else:
            newest = max(self.last_ns, other.last_ns)
            self.first_ns = min(self.first_ns, other.first_ns)
            self.weight = self.weight_at(newest, decay_ns) + other.weight_at(newest, decay_ns)
            if other.last_ns >= self.last_ns and other.srtt_us:
                self.srtt_us = other.srtt_us
            self.last_ns = newest
        self.events += other.events
        self._kinds += other._kinds
        self.srtt_most = max(self.srtt_most, other.srtt_most)

    def weight_at(self, now_ns: int, decay_ns: float) -> float:
        return self.weight * math.exp(-max(0, now_ns - self.last_ns) / decay_ns) if self.events else 0.0


class Side(Traffic):
    """One end of a connection, and what it sent, as its host tells it. host, netns: who tells; host is None until it
    has told anything. node: who talks there; process: if that is one."""

    __slots__ = ("address", "host", "netns", "node", "port", "process")

    def __init__(self, address: str, port: int) -> None:
        super().__init__()
        self.address, self.port = address, port
        self.host: Optional[str] = None
        self.netns = 0
        self.node: Optional[Node] = None
        self.process: Optional[Process] = None


Connection = Tuple[Side, Side]
"""Two ends, the smaller first."""


class Edge:
    """Everything between two nodes. there: from the first to the second; back. ports: of the ends that serve, as far as
    it can be told, some of them. connections: how many there were."""

    __slots__ = ("back", "connections", "ports", "there")

    def __init__(self) -> None:
        self.there, self.back = Traffic(), Traffic()
        self.ports: Tuple[int, ...] = ()
        self.connections = 0

    def events(self) -> int:
        return self.there.events + self.back.events

    def add(self, there: Traffic, back: Traffic, ports: Tuple[int, ...], connections: int, decay_ns: float) -> None:
        self.there.merge(there, decay_ns)
        self.back.merge(back, decay_ns)
        self.connections += connections
        if ports != self.ports:
            self.ports = tuple(dict.fromkeys(self.ports + ports))[:MOST_PORTS]
