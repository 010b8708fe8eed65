"""A view as text: JSON, DOT, GraphML, or a page."""

from __future__ import annotations

import json
import pkgutil
from typing import Any, Callable, Dict, List, Tuple
from xml.sax.saxutils import escape, quoteattr

from .view import View

PLACEHOLDER = "/*DATA*/null"


def to_json(view: View) -> str:
    return json.dumps(view.document, indent=1) + "\n"


def to_dot(view: View) -> str:
    """For Graphviz: one cluster per host; an edge is as thick as it has retransmits."""
    document = view.document
    most = max((edge["events"] for edge in document["edges"]), default=1)
    blamed = {number for suspect in document["suspects"] for number in suspect["nodes"]}
    lines = ["graph sockpid {", '  node [shape=box, fontname="sans-serif"];']
    by_host: Dict[str, List[Dict[str, Any]]] = {}
    for node in document["nodes"]:
        by_host.setdefault(node["host"] or "", []).append(node)
    for number, (host, nodes) in enumerate(sorted(by_host.items())):
        bad = ", color=red, penwidth=2"
        inner = [
            f"    n{node['id']} [label={_dot(node['title'])}{bad if node['id'] in blamed else ''}];" for node in nodes
        ]
        lines += [f"  subgraph cluster_{number} {{", f"    label={_dot(host)};", *inner, "  }"] if host else inner
    for edge in document["edges"]:
        width = 1 + 5 * edge["events"] / most
        lines.append(
            f"  n{edge['source']} -- n{edge['target']} [label={_dot(str(edge['events']))}, penwidth={width:.1f}];"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _dot(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


NODE_KEYS = (("kind", "string"), ("host", "string"), ("title", "string"), ("pid", "long"), ("labels", "string"))
EDGE_KEYS = (("events", "long"), ("connections", "long"), ("sent_there", "long"), ("sent_back", "long"),
             ("per_second", "double"), ("srtt_us", "long"), ("last_ns", "long"))  # fmt: skip


def to_graphml(view: View) -> str:
    """Undirected; `sent_there` are the retransmits that the edge's source sent."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">']
    for of, keys in (("node", NODE_KEYS), ("edge", EDGE_KEYS)):
        for name, kind in keys:
            lines.append(f'  <key id="{of}-{name}" for="{of}" attr.name="{name}" attr.type="{kind}"/>')
    lines.append('  <graph id="sockpid" edgedefault="undirected">')
    for node in view.document["nodes"]:
        labels = " ".join(f"{name}={value}" for name, value in sorted(node["labels"].items()))
        values = {**node, "labels": labels or None}
        lines.append(f'    <node id="n{node["id"]}">{_data("node", NODE_KEYS, values)}</node>')
    for edge in view.document["edges"]:
        there, back = edge["there"], edge["back"]
        values = {
            **edge,
            "sent_there": there["events"],
            "sent_back": back["events"],
            "per_second": there["per_second"] + back["per_second"],
            "srtt_us": max(there["srtt_us"], back["srtt_us"]),
            "last_ns": max(there["last_ns"], back["last_ns"]),
        }
        ends = f'source="n{edge["source"]}" target="n{edge["target"]}"'
        lines.append(f"    <edge {ends}>{_data('edge', EDGE_KEYS, values)}</edge>")
    return "\n".join([*lines, "  </graph>", "</graphml>"]) + "\n"


def _data(of: str, keys: Tuple[Tuple[str, str], ...], values: Dict[str, Any]) -> str:
    return "".join(
        f"<data key={quoteattr(f'{of}-{name}')}>{escape(str(values[name]))}</data>"
        for name, _ in keys
        if values[name] is not None
    )


def to_html(view: View) -> str:
    """One page that needs nothing else."""
    page = (pkgutil.get_data("sockpid.graph", "page.html") or b"").decode()
    # "<" could end the script; U+2028 and U+2029 end a line in older JavaScript.
    data = json.dumps(view.document, separators=(",", ":")).replace("<", "\\u003c")
    return page.replace(PLACEHOLDER, data, 1)


FORMATS: Dict[str, Callable[[View], str]] = {"json": to_json, "dot": to_dot, "graphml": to_graphml, "html": to_html}
