"""The graph itself: events in, connections kept, memory bounded."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from .model import KINDS, Connection, Edge, End, Node, Process, Side

NUMBER_OF_KIND = {kind: number for number, kind in enumerate(KINDS)}
OTHER = NUMBER_OF_KIND["other"]

Key = Tuple[Optional[Tuple[str, int]], End, End]


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
        self.first_ns = self.last_ns = 0
        self.processes: Dict[Node, Process] = {}
        self.hosts: Dict[str, int] = {}
        """Host -> events."""
        self._connections: Dict[Key, List[Connection]] = {}
        self._count = 0
        self._edges: Dict[Tuple[Node, Node], Edge] = {}
        self._claims: Dict[str, Optional[str]] = {}
        """Address -> the host that has it, None if several say so."""

    def handle_transport_event(self, event: Mapping[str, Any]) -> None:
        """Takes one event, the documented object (docs/events.md); a gap is counted as missing. Raises KeyError,
        ValueError or TypeError for anything else, having changed nothing."""
        if "dropped" in event:
            self.missing += int(event["dropped"])
            return
        host: str = event["host"]
        ts_ns: int = event["ts_ns"]
        saddr: str = event["saddr"]
        netns: int = event["netns"]
        srtt_us: int = event["srtt_us"]
        local, remote = (saddr, event["sport"]), (event["daddr"], event["dport"])
        pid, how = event["pid"], event["how"]
        kind = NUMBER_OF_KIND.get(event["kind"], OTHER)
        if pid is not None:
            node = Node("process", host, pid, event["start_ns"] or 0)
            comm, labels = event["comm"], event.get("labels")
        else:
            node, comm, labels = Node("kernel" if how == "kernel" else "unknown", host), None, None
        alone = _on_one_host(saddr)
        scope = (host, netns) if alone else None
        number = int(local > remote)
        if number:
            connection = self._connection((scope, remote, local), 1, host, netns)
        else:
            connection = self._connection((scope, local, remote), 0, host, netns)
        side = connection.sides[number]
        side.node = node if pid is not None or side.node is None else side.node
        side.traffic.add(kind, ts_ns, srtt_us, self.decay_ns)
        if pid is not None:
            process = self.processes.get(node)
            if process is None:
                process = self.processes[node] = Process()
            process.comm = comm
            if labels:
                process.labels = labels
        self.events += 1
        self.hosts[host] = self.hosts.get(host, 0) + 1
        if not alone and self._claims.setdefault(saddr, host) != host:
            self._claims[saddr] = None
        self.last_ns = max(self.last_ns, ts_ns)
        self.first_ns = min(self.first_ns or ts_ns, ts_ns)
        if self._count > self.max_connections:
            self._fold()

    def _connection(self, key: Key, number: int, host: str, netns: int) -> Connection:
        """The connection whose end `number` this host and namespace tell of."""
        found = self._connections.get(key)
        if found is None:
            found = self._connections[key] = []
        reporter = (host, netns)
        for connection in found:
            side = connection.sides[number]
            if side.reporter == reporter:
                return connection
        for connection in found:
            side = connection.sides[number]
            if side.reporter is None:
                side.reporter = reporter
                return connection
        made = Connection(key[1], key[2])
        made.sides[number].reporter = reporter
        found.append(made)
        self._count += 1
        return made

    def connections(self) -> Iterator[Connection]:
        for found in self._connections.values():
            yield from found

    def edges(self) -> Dict[Tuple[Node, Node], Edge]:
        """Between nodes, the smaller first: of all connections, and of those that are not kept any more."""
        found: Dict[Tuple[Node, Node], Edge] = {}
        for pair, edge in self._edges.items():
            found.setdefault(pair, Edge()).add(*edge.traffic, edge.ports, edge.connections, self.decay_ns)
        for connection in self.connections():
            self._add(found, connection)
        return found

    def nodes_of(self, connection: Connection) -> Tuple[Node, Node]:
        """Who talks at either end. An end that its host has not told of is that host's, if one host alone has the
        address, but nobody's in particular."""
        low, high = (
            side.node or self._silent(end[0], other)
            for side, end, other in zip(connection.sides, connection.ends, reversed(connection.sides))
        )
        return low, high

    def _silent(self, address: str, other: Side) -> Node:
        if _on_one_host(address):
            return Node("unknown", other.reporter[0] if other.reporter else address)
        host = self._claims.get(address)
        return Node("unknown", host) if host else Node("address", address)

    def _add(self, edges: Dict[Tuple[Node, Node], Edge], connection: Connection) -> None:
        low, high = self.nodes_of(connection)
        there, back = (side.traffic for side in connection.sides)
        if high < low:
            low, high, there, back = high, low, back, there
        edge = edges.get((low, high))
        if edge is None:
            edge = edges[low, high] = Edge()
        edge.add(there, back, [min(end[1] for end in connection.ends)], 1, self.decay_ns)

    def _fold(self) -> None:
        """Makes room: the quarter of the connections that were silent longest become edges. Both ends of a connection
        have told of it by then, if their events come in the order of time."""
        every = [(key, connection) for key, found in self._connections.items() for connection in found]
        every.sort(key=lambda item: item[1].last_ns())
        for key, connection in every[: max(1, len(every) // 4)]:
            self._add(self._edges, connection)
            found = self._connections[key]
            found.remove(connection)
            if not found:
                del self._connections[key]
            self._count -= 1
        if len(self._edges) > self.max_edges:
            by_size = sorted(self._edges, key=lambda pair: self._edges[pair].events())
            for pair in by_size[: len(by_size) // 4]:
                self.forgotten += self._edges.pop(pair).events()
        if len(self.processes) > self.max_edges:
            needed: Set[Optional[Node]] = {node for pair in self._edges for node in pair}
            needed |= {side.node for connection in self.connections() for side in connection.sides}
            self.processes = {node: process for node, process in self.processes.items() if node in needed}
        if len(self._claims) > self.max_edges:
            needed_here = {end[0] for connection in self.connections() for end in connection.ends}
            self._claims = {address: host for address, host in self._claims.items() if address in needed_here}


def _on_one_host(address: str) -> bool:
    return address.startswith(("127.", "fe80:")) or address == "::1"
