"""The graph itself: events in, connections kept, memory bounded."""

from __future__ import annotations

import sys
from typing import Any, Dict, Iterator, Mapping, Optional, Set, Tuple

from .model import KINDS, Connection, Edge, Node, Process, Side, Starts

NUMBER_OF_KIND = {kind: number for number, kind in enumerate(KINDS)}
OTHER = NUMBER_OF_KIND["other"]
_ON_ONE_HOST = ("127.", "fe80:")

Key = Tuple[Optional[Tuple[str, int]], str, int, str, int]
"""A connection's name: where it means something if not everywhere; the smaller end's address and port; the other's."""


class TransportGraph:
    """Processes, ends and the connections between them, from the events of any number of hosts in any order.

    Both ends of a connection are one connection here: it is known by its two addresses and ports, and by host and
    network namespace besides where an address means something on one host only (loopback, link-local). Where two hosts
    tell of the same end - private addresses used twice - they are kept apart. Where an address is translated on the way
    (NAT), the two ends go by different names, and it remains two connections, each with a remote end of which nothing
    is known.

    Counts are exact: `events` is the sum over all connections, edges of forgotten connections, and `forgotten`.
    """

    def __init__(self, max_connections: int = 65536, max_edges: int = 65536, decay_seconds: float = 60.0) -> None:
        """max_connections: beyond that, those that were silent longest become mere edges between processes.
        max_edges: beyond that, of these the smallest are forgotten. decay_seconds: of rates."""
        self.max_connections, self.max_edges = max_connections, max_edges
        self.decay_ns = decay_seconds * 1e9
        self.events = self.forgotten = self.missing = 0
        """Events handled; of these, no longer in any edge; events that a stream says are missing from it."""
        self.missing_of: Dict[str, int] = {}
        """Host -> of the missing ones, those that its stream says are missing from it."""
        self.first_ns = self.last_ns = 0
        self.processes: Dict[Node, Process] = {}
        self.hosts: Dict[str, int] = {}
        """Host -> events."""
        self._connections: Dict[Key, Tuple[Side, ...]] = {}
        """Connections of one name, one after the other."""
        self._count = 0
        self._edges: Dict[Tuple[Node, Node], Edge] = {}
        self._starts = Starts()
        self._claims: Dict[str, Optional[str]] = {}
        """Address -> the host that has it, None if several say so."""

    def handle_transport_event(self, event: Mapping[str, Any]) -> None:
        """Takes one event, the documented object (docs/events.md); a gap is counted as missing. Raises KeyError,
        ValueError or TypeError for anything else, having changed nothing."""
        if "dropped" in event:
            self._miss(int(event["dropped"]), event.get("host"))
            return
        host: str = event["host"]
        netns: int = event["netns"]
        saddr, sport, daddr, dport = event["saddr"], event["sport"], event["daddr"], event["dport"]
        ts_ns: int = event["ts_ns"]
        srtt_us: int = event["srtt_us"]
        kind = NUMBER_OF_KIND.get(event["kind"], OTHER)
        pid, how, comm, start_ns = event["pid"], event["how"], event["comm"], event["start_ns"] or 0
        labels = event.get("labels")
        later = ts_ns > self.last_ns
        if srtt_us < 0 or not isinstance(comm, (str, type(None))) or not isinstance(labels, (dict, type(None))):
            raise ValueError("an event's srtt_us is a number, its comm a string, its labels an object")
        scope = (host, netns) if _on_one_host(saddr) else None
        number = int(saddr > daddr or (saddr == daddr and sport > dport))
        key = (scope, daddr, dport, saddr, sport) if number else (scope, saddr, sport, daddr, dport)
        side = self._side(key, number, host, netns)
        node = side.node if side is not None else None
        if pid is None:
            process = None
            if node is None:
                node = Node("kernel" if how == "kernel" else "unknown", sys.intern(host))
        elif node is not None and node.pid == pid and node.start_ns == start_ns:
            process = side.process if side is not None else None
        else:
            where = sys.intern(host)
            process = self._process(Node("process", where, pid, self._starts.one(where, pid, start_ns)))
            node = process.node
        if side is None:
            side = self._new_side(key, number, host, netns)
        side.node = node
        if process is not None:
            side.process = process
            process.comm = comm
            if labels:
                process.labels = labels
        side.add(kind, ts_ns, srtt_us, self.decay_ns)
        self.events += 1
        self.hosts[host] = self.hosts.get(host, 0) + 1
        if later:
            self.last_ns = ts_ns
        if ts_ns < self.first_ns or not self.first_ns:
            self.first_ns = ts_ns
        if self._count > self.max_connections:
            self._fold()

    def _miss(self, missing: int, host: Any) -> None:
        """host: None if the gap does not tell; it need not (docs/events.schema.json)."""
        if host is not None:
            self.missing_of[sys.intern(host)] = self.missing_of.get(host, 0) + missing
        self.missing += missing

    def _side(self, key: Key, number: int, host: str, netns: int) -> Optional[Side]:
        """The end `number` of the connection of that name, as this host and namespace have told of it."""
        sides = self._connections.get(key, ())
        while number < len(sides):
            side = sides[number]
            if side.host == host and side.netns == netns:
                return side
            number += 2
        return None

    def _new_side(self, key: Key, number: int, host: str, netns: int) -> Side:
        """Of the connection of that name whose end `number` nobody has told of, or of another one."""
        sides = self._connections.get(key, ())
        side = next((side for side in sides[number::2] if side.host is None), None)
        if side is None:
            # Events come with strings of their own; a few addresses are those of all connections.
            scope, low, low_port, high, high_port = key
            low, high = sys.intern(low), sys.intern(high)
            made = Side(low, low_port), Side(high, high_port)
            self._connections[scope, low, low_port, high, high_port] = sides + made
            self._count += 1
            side = made[number]
        side.host, side.netns = sys.intern(host), netns
        if key[0] is None and self._claims.setdefault(side.address, side.host) != side.host:
            self._claims[side.address] = None
        return side

    def _process(self, node: Node) -> Process:
        found = self.processes.get(node)
        if found is None:
            found = self.processes[node] = Process(node)
        return found

    def connections(self) -> Iterator[Connection]:
        for sides in self._connections.values():
            yield from zip(sides[::2], sides[1::2])

    def edges(self) -> Dict[Tuple[Node, Node], Edge]:
        """Between nodes, the smaller first: of all connections, and of those that are not kept any more."""
        found: Dict[Tuple[Node, Node], Edge] = {}
        for pair, edge in self._edges.items():
            found.setdefault(pair, Edge()).add(edge.there, edge.back, edge.ports, edge.connections, self.decay_ns)
        for connection in self.connections():
            self._add(found, connection)
        return found

    def nodes_of(self, connection: Connection) -> Tuple[Node, Node]:
        """Who talks at either end. An end that its host has not told of is that host's, if one host alone has the
        address, but nobody's in particular."""
        low, high = connection
        return low.node or self._silent(low, high), high.node or self._silent(high, low)

    def _silent(self, side: Side, other: Side) -> Node:
        if _on_one_host(side.address):
            return Node("unknown", other.host or side.address)
        host = self._claims.get(side.address)
        return Node("unknown", host) if host else Node("address", side.address)

    def _add(self, edges: Dict[Tuple[Node, Node], Edge], connection: Connection) -> None:
        there, back = connection
        low, high = self.nodes_of(connection)
        if high < low:
            low, high, there, back = high, low, back, there
        edge = edges.get((low, high))
        if edge is None:
            edge = edges[low, high] = Edge()
        edge.add(there, back, (min(there.port, back.port),), 1, self.decay_ns)

    def _fold(self) -> None:
        """Makes room: the quarter of the connections that were silent longest become edges. Both ends of a connection
        have told of it by then, if their events come in the order of time."""
        every = [(key, connection) for key, sides in self._connections.items()
                 for connection in zip(sides[::2], sides[1::2])]  # fmt: skip
        every.sort(key=lambda item: max(item[1][0].last_ns, item[1][1].last_ns))
        for key, connection in every[: max(1, len(every) // 4)]:
            self._add(self._edges, connection)
            left = tuple([side for side in self._connections.pop(key) if side not in connection])
            if left:
                self._connections[key] = left
            self._count -= 1
        if len(self._edges) > self.max_edges:
            by_size = sorted(self._edges, key=lambda pair: self._edges[pair].events())
            for pair in by_size[: len(by_size) // 4]:
                self.forgotten += self._edges.pop(pair).events()
        if len(self.processes) > self.max_edges:
            needed: Set[Optional[Node]] = {node for pair in self._edges for node in pair}
            needed |= {side.node for connection in self.connections() for side in connection}
            self.processes = {node: process for node, process in self.processes.items() if node in needed}
        if len(self._claims) > self.max_edges:
            needed_here = {side.address for connection in self.connections() for side in connection}
            self._claims = {address: host for address, host in self._claims.items() if address in needed_here}


def _on_one_host(address: str) -> bool:
    """Raises TypeError if it is no string."""
    return str.startswith(address, _ON_ONE_HOST) or address == "::1"
