"""What the graph remembers."""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

KINDS = ("rto", "fast", "tlp", "syn", "synack", "failed", "other")

End = Tuple[str, int]
"""Address and port."""


class Node(NamedTuple):
    """One who talks. kind: "process"; "unknown" (an owner that is not known, on a host that is), "kernel" (likewise),
    or "address" (a remote end of which no host has told anything)."""

    kind: str
    where: str
    """The host; of an "address", that."""
    pid: int = 0
    start_ns: int = 0


class Process:
    """What is known of a process. comm and labels: as last told."""

    __slots__ = ("comm", "labels")

    def __init__(self) -> None:
        self.comm: Optional[str] = None
        self.labels: Dict[str, Any] = {}


class Traffic:
    """Retransmits in one direction. kinds: counts in the order of KINDS; srtt_us: latest that was not 0; srtt_most: the
    greatest. weight: events, each counting less the older it is, as of last_ns."""

    __slots__ = ("events", "first_ns", "kinds", "last_ns", "srtt_most", "srtt_us", "weight")

    def __init__(self) -> None:
        self.events = self.first_ns = self.last_ns = self.srtt_us = self.srtt_most = 0
        self.kinds: List[int] = [0] * len(KINDS)
        self.weight = 0.0

    def add(self, kind: int, ts_ns: int, srtt_us: int, decay_ns: float) -> None:
        """decay_ns: time after which an event counts 1/e."""
        if not self.events:
            self.first_ns = self.last_ns = ts_ns
        self.events += 1
        self.kinds[kind] += 1
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
        self.first_ns = min(self.first_ns, other.first_ns) if self.events else other.first_ns
        newest = max(self.last_ns, other.last_ns)
        self.weight = self.weight_at(newest, decay_ns) + other.weight_at(newest, decay_ns)
        if other.last_ns >= self.last_ns and other.srtt_us:
            self.srtt_us = other.srtt_us
        self.last_ns = newest
        self.events += other.events
        self.kinds = [mine + theirs for mine, theirs in zip(self.kinds, other.kinds)]
        self.srtt_most = max(self.srtt_most, other.srtt_most)

    def weight_at(self, now_ns: int, decay_ns: float) -> float:
        return self.weight * math.exp(-max(0, now_ns - self.last_ns) / decay_ns) if self.events else 0.0


class Side:
    """One end of a connection, as its host tells it; reporter: host and network namespace, None until it has told
    anything."""

    __slots__ = ("node", "reporter", "traffic")

    def __init__(self) -> None:
        self.reporter: Optional[Tuple[str, int]] = None
        self.node: Optional[Node] = None
        self.traffic = Traffic()


class Connection:
    """Two ends, the smaller first."""

    __slots__ = ("ends", "sides")

    def __init__(self, low: End, high: End) -> None:
        self.ends = (low, high)
        self.sides = (Side(), Side())

    def events(self) -> int:
        return self.sides[0].traffic.events + self.sides[1].traffic.events

    def last_ns(self) -> int:
        return max(side.traffic.last_ns for side in self.sides)


class Edge:
    """Everything between two nodes. traffic: from the first to the second and back. ports: of the ends that serve, as
    far as it can be told, some of them. connections: how many there were."""

    __slots__ = ("connections", "ports", "traffic")

    def __init__(self) -> None:
        self.traffic = (Traffic(), Traffic())
        self.ports: List[int] = []
        self.connections = 0

    def events(self) -> int:
        return self.traffic[0].events + self.traffic[1].events

    def add(self, there: Traffic, back: Traffic, ports: List[int], connections: int, decay_ns: float) -> None:
        self.traffic[0].merge(there, decay_ns)
        self.traffic[1].merge(back, decay_ns)
        self.connections += connections
        for port in ports:
            if port not in self.ports and len(self.ports) < 8:
                self.ports.append(port)
