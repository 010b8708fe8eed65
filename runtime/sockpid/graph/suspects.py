"""Who has more retransmits than chance would give, and why we say so.

Only connections that had a retransmit are known, so the question is: of these, do those that touch X have more than the
others do? X is a host, a process, a label (RANK=3), a remote address, or two nodes that talk to each other. Were X like
the others, its connections would have the others' mean; how far the sum may stray from that by chance, the others' own
spread tells. The one that stands out most explains its connections; they are set aside and the rest is looked at again,
so that nobody is blamed for talking to a culprit.
"""

from __future__ import annotations

import math
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from .model import Edge, Node, Process
from .transport import TransportGraph

LEAST_EVENTS = 20
LEAST_RATIO = 3.0
LEAST_SCORE = 5.0
MOST = 5

Edges = Dict[Tuple[Node, Node], Edge]
Entity = Tuple[str, str]
"""What it is - "host", "process", "label", "address", "pair" - and its name."""


class Suspect(NamedTuple):
    """events: on its edges; expected: if it were like the others; ratio of both; score: how many standard deviations
    lie between; sent: events that it sent; nodes: those it stands for; title, why: all that in words."""

    kind: str
    name: str
    title: str
    events: int
    expected: float
    ratio: float
    score: float
    share: float
    sent: int
    peers: int
    nodes: Tuple[Node, ...]
    why: str


class _Row(NamedTuple):
    """An edge as evidence: its nodes, who is at either of them, all that it is evidence about, events there and back,
    connections."""

    nodes: Tuple[Node, Node]
    entities: Tuple[Tuple[Entity, ...], Tuple[Entity, ...]]
    touching: Tuple[Entity, ...]
    events: Tuple[int, int]
    connections: int


class _Sum:
    """Of rows. squares: of the events per connection, as if each of a row's connections had its share."""

    __slots__ = ("connections", "events", "squares")

    def __init__(self) -> None:
        self.events = self.connections = 0
        self.squares = 0.0

    def add(self, row: _Row, sign: int = 1) -> None:
        events, connections = row.events[0] + row.events[1], row.connections
        self.events += sign * events
        self.connections += sign * connections
        self.squares += sign * events * events / connections


def suspects(graph: TransportGraph, most: int = MOST, edges: Optional[Edges] = None) -> List[Suspect]:
    """At most so many, the one that stands out most first. None is a good answer, too.

    edges: those of the graph, if they are at hand.
    """
    entities: Dict[Node, Tuple[Entity, ...]] = {}
    rows = [_row(graph.processes, entities, pair, edge) for pair, edge in (edges or graph.edges()).items()]
    whole = _Sum()
    sums: Dict[Entity, _Sum] = {}
    for row in rows:
        whole.add(row)
        for entity in row.touching:
            own = sums.get(entity)
            if own is None:
                own = sums[entity] = _Sum()
            own.add(row)
    # What is set aside takes its events along: who has too few of them now will never have enough.
    sums = {entity: own for entity, own in sums.items() if own.events >= LEAST_EVENTS}
    total = whole.events
    found: List[Suspect] = []
    while len(found) < most:
        best = _best(whole, sums)
        if best is None:
            break
        entity, score, expected = best
        chosen = [row for row in rows if entity in row.touching]
        found.append(_suspect(entity, score, expected, chosen, whole.connections, total))
        rows = [row for row in rows if entity not in row.touching]
        for row in chosen:
            whole.add(row, -1)
            for each in row.touching:
                if each in sums:
                    sums[each].add(row, -1)
    return found


def _row(
    processes: Dict[Node, Process], known: Dict[Node, Tuple[Entity, ...]], pair: Tuple[Node, Node], edge: Edge
) -> _Row:
    """known: what the nodes of former rows stand for."""
    low, high = pair
    for node in pair:
        if node not in known:
            known[node] = tuple(_entities(processes, node))
    there, back = edge.there.events, edge.back.events
    touching = (*known[low], *(entity for entity in known[high] if entity not in known[low]))
    if there + back >= LEAST_EVENTS:
        touching = (*touching, ("pair", f"{_short(known[low])} and {_short(known[high])}"))
    return _Row(pair, (known[low], known[high]), touching, (there, back), max(1, edge.connections))


def _entities(processes: Dict[Node, Process], node: Node) -> Iterable[Entity]:
    if node.kind == "address":
        yield "address", node.where
        return
    yield "host", node.where
    if node.kind == "process":
        process = processes.get(node)
        yield "process", f"{process.comm if process else '?'}[{node.pid}] on {node.where}"
        for name, value in process.named_labels() if process else ():
            if name.startswith("env."):
                yield "label", f"{name[4:]}={value}"
            elif name in ("unit", "pod_uid", "container_id"):
                yield "label", f"{name}={value}"


def _short(entities: Tuple[Entity, ...]) -> str:
    return next((name for kind, name in entities if kind == "process"), entities[0][1])


def _best(whole: _Sum, sums: Dict[Entity, _Sum]) -> Optional[Tuple[Entity, float, float]]:
    """Who stands out most of all that has not been set aside: name, score, and what was expected of it."""
    best, best_score, best_expected = None, LEAST_SCORE, 0.0
    for entity, own in sums.items():
        others = whole.connections - own.connections
        if own.events < LEAST_EVENTS or others < 2:
            continue
        mean = (whole.events - own.events) / others
        expected = mean * own.connections
        if own.events < LEAST_RATIO * expected:
            continue
        spread = max(0.0, (whole.squares - own.squares) / others - mean * mean)
        score = (own.events - expected) / math.sqrt(own.connections * spread + expected + 1.0)
        if score > best_score:
            best, best_score, best_expected = entity, score, expected
    return (best, best_score, best_expected) if best else None


def _suspect(entity: Entity, score: float, expected: float, chosen: List[_Row], of_all: int, total: int) -> Suspect:
    """chosen: its rows. of_all, total: all connections that were looked at, all events."""
    kind, name = entity
    events = sum(sum(row.events) for row in chosen)
    connections = sum(row.connections for row in chosen)
    sent = 0
    own: Dict[Node, None] = {}
    peers: Dict[Node, int] = {}
    for row in chosen:
        for side in (0, 1):
            if kind == "pair" or entity in row.entities[side]:
                own[row.nodes[side]] = None
                sent += row.events[side]
            else:
                peers[row.nodes[side]] = peers.get(row.nodes[side], 0) + sum(row.events)
    share = events / total
    why = [
        f"{events} of {total} retransmits ({share:.0%}) are on {connections} of {of_all} connections "
        f"({connections / of_all:.1%}).",
        f"If these were like the others, there would be {expected:.0f}: {_times(events, expected)}.",
    ]
    if kind != "pair":
        where = len({node.where for node in peers})
        if len(peers) > 1:
            why.append(
                f"{len(peers)} peers on {where} {'hosts' if where > 1 else 'host'} are affected; this is what they "
                "have in common."
            )
        if sent >= 0.8 * events:
            why.append(f"{sent / events:.0%} were sent by it: look at what leaves it.")
        elif sent <= 0.2 * events:
            why.append(
                f"{1 - sent / events:.0%} were sent to it: look at what arrives there (its link, its receive "
                "queue, too many senders at once)."
            )
        else:
            why.append(f"{sent / events:.0%} were sent by it, the others to it: both ways are affected.")
    else:
        why.append("Neither end stands out beside it: look at the path between the two.")
    ratio = events / max(expected, 1e-9)
    return Suspect(
        kind,
        name,
        _title(kind, name),
        events,
        expected,
        ratio,
        score,
        share,
        sent,
        len(peers),
        tuple(own),
        " ".join(why),
    )


def _title(kind: str, name: str) -> str:
    return {"label": name, "address": f"remote address {name}", "pair": f"between {name}"}.get(kind, f"{kind} {name}")


def _times(events: int, expected: float) -> str:
    return f"{events / expected:.0f} times as many as expected" if expected >= 0.5 else "hardly any"
