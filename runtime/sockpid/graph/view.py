"""The graph at one moment as a plain document, the largest first: what every export is made of."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple

from sockpid.event.text import printable

from .model import KINDS, Edge, Node, Traffic
from .suspects import Suspect, suspects
from .transport import TransportGraph

SCHEMA = 1


class View(NamedTuple):
    """document: see docs/graph.md. JSON types only."""

    document: Dict[str, Any]

    @classmethod
    def of(cls, graph: TransportGraph, max_edges: int = 5000) -> View:
        """max_edges: the largest so many are told one by one; `omitted` says what the others hold."""
        every = graph.edges()
        edges = sorted(every.items(), key=lambda item: (-item[1].events(), item[0]))
        shown, rest = edges[:max_edges], edges[max_edges:]
        nodes: Dict[Node, int] = {}
        for pair, _ in shown:
            for node in pair:
                nodes.setdefault(node, len(nodes))
        found = suspects(graph, edges=every)
        return cls(
            {
                "schema": SCHEMA,
                "events": graph.events,
                "missing": graph.missing,
                "forgotten": graph.forgotten,
                "omitted": {"edges": len(rest), "events": sum(edge.events() for _, edge in rest)},
                "first_ns": graph.first_ns,
                "last_ns": graph.last_ns,
                "hosts": [_host(graph, name) for name in sorted({*graph.hosts, *graph.missing_of})],
                "nodes": [_node(graph, node, number) for node, number in nodes.items()],
                "edges": [_edge(graph, edge, nodes[pair[0]], nodes[pair[1]]) for pair, edge in shown],
                "suspects": [_suspect(each, nodes) for each in found],
            }
        )


def _host(graph: TransportGraph, name: str) -> Dict[str, Any]:
    return {"name": name, "events": graph.hosts.get(name, 0), "missing": graph.missing_of.get(name, 0)}


def _node(graph: TransportGraph, node: Node, number: int) -> Dict[str, Any]:
    process = graph.processes.get(node)
    flat = dict(process.named_labels()) if process else {}
    comm = printable(process.comm or "?") if process else None
    ranks = printable(" ".join(f"{name[4:]}={value}" for name, value in flat.items() if name.startswith("env.")))
    named = f"{comm}[{node.pid}]" + (f" {ranks}" if ranks else "")
    titles = {"unknown": "unknown owner", "kernel": "kernel", "address": node.where}
    return {
        "id": number,
        "kind": node.kind,
        "host": None if node.kind == "address" else node.where,
        "address": node.where if node.kind == "address" else None,
        "pid": node.pid if process else None,
        "start_ns": node.start_ns if process else None,
        "comm": comm,
        "title": titles.get(node.kind, named),
        "short": titles.get(node.kind, ranks or named),
        "labels": flat,
    }


def _edge(graph: TransportGraph, edge: Edge, source: int, target: int) -> Dict[str, Any]:
    return {
        "source": source,
        "target": target,
        "events": edge.events(),
        "connections": edge.connections,
        "ports": sorted(edge.ports),
        "there": _traffic(graph, edge.there),
        "back": _traffic(graph, edge.back),
    }


def _traffic(graph: TransportGraph, traffic: Traffic) -> Dict[str, Any]:
    return {
        "events": traffic.events,
        "per_second": round(traffic.weight_at(graph.last_ns, graph.decay_ns) / (graph.decay_ns / 1e9), 4),
        "kinds": {kind: count for kind, count in zip(KINDS, traffic.kinds) if count},
        "srtt_us": traffic.srtt_us,
        "srtt_us_most": traffic.srtt_most,
        "first_ns": traffic.first_ns,
        "last_ns": traffic.last_ns,
    }


def _suspect(suspect: Suspect, nodes: Dict[Node, int]) -> Dict[str, Any]:
    numbers: List[int] = sorted(nodes[node] for node in suspect.nodes if node in nodes)
    return {
        "kind": suspect.kind,
        "name": printable(suspect.name),
        "title": printable(suspect.title),
        "events": suspect.events,
        "expected": round(suspect.expected, 2),
        "ratio": round(suspect.ratio, 2),
        "score": round(suspect.score, 2),
        "share": round(suspect.share, 4),
        "sent": suspect.sent,
        "peers": suspect.peers,
        "nodes": numbers,
        "why": printable(suspect.why),
    }
