"""An event for people and for stores of flat fields."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Tuple


def fields(document: Mapping[str, Any], prefix: str = "") -> Iterator[Tuple[str, str]]:
    """Every key that has a value, with it as text; a key within an object is joined to that one's by "_"."""
    for key, value in document.items():
        if value is None or key == "sharers":
            continue
        if isinstance(value, dict):
            yield from fields(value, prefix + key + "_")
        elif isinstance(value, bool):
            yield prefix + key, "true" if value else "false"
        else:
            yield prefix + key, str(value)


def sentence(document: Mapping[str, Any]) -> str:
    """One line: what happened, between whom, and whose the socket is or why that is not known."""
    local, remote = end(document["saddr"], document["sport"]), end(document["daddr"], document["dport"])
    return f"{document['kind']} retransmit {local} -> {remote} of {owner(document)}"


def owner(document: Mapping[str, Any]) -> str:
    if document["pid"] is not None:
        return f"{printable(document['comm'])}[{document['pid']}]"
    return "the kernel" if document["how"] == "kernel" else f"an unknown owner ({document['reason']})"


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(name: str) -> str:
    """A process's name without what a terminal would obey: a process names itself as it likes."""
    return "".join(c if c.isprintable() else "?" for c in name)
