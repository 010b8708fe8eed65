"""Events and counts as lines of a table."""

from __future__ import annotations

import time
from typing import Any, Dict

from .event import Count

COLUMNS = "{:<12} {:<6} {:>8} {:<16} {:<26} {:<26} {:<11} {:<8} {:>11}"
HEADER = COLUMNS.format("TIME", "KIND", "PID", "COMM", "LOCAL", "REMOTE", "STATE", "HOW", "INTERRUPTED")
COUNT_COLUMNS = "{:>8} {:>8} {:<16} {:<26} {:<26}"
COUNT_HEADER = COUNT_COLUMNS.format("COUNT", "PID", "COMM", "LOCAL", "REMOTE")


def row(document: Dict[str, Any]) -> str:
    """One event's line. A "+" behind the name: more than one process has used the socket; "(exited)": it is gone."""
    moment = document["ts_ns"]
    clock = time.strftime("%H:%M:%S", time.localtime(moment // 10**9)) + f".{moment // 10**6 % 1000:03d}"
    if document["pid"] is not None:
        owner, name = str(document["pid"]), printable(document["comm"])
        if document["ambiguous"] > 1:
            name += f" +{document['ambiguous'] - 1}"
        if document.get("exited"):
            name += " (exited)"
    else:
        owner, name = ("-", "(kernel)") if document["how"] == "kernel" else ("?", f"({document['reason']})")
    line = COLUMNS.format(
        clock,
        document["kind"],
        owner,
        name,
        end(document["saddr"], document["sport"]),
        end(document["daddr"], document["dport"]),
        document["state"],
        document["how"] or "-",
        document["interrupted_pid"],
    )
    if document.get("sharers"):
        line += "  shared by " + ", ".join(f"{s['pid']} {printable(s['comm'])}" for s in document["sharers"])
    return line


def count_row(count: Count) -> str:
    owner, name = (str(count.pid), printable(count.comm)) if count.pid else ("?", "(unknown)")
    t = count.tuple
    return COUNT_COLUMNS.format(count.events, owner, name, end(t.saddr, t.sport), end(t.daddr, t.dport))


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(name: str) -> str:
    """A process's name without what a terminal would obey: a process names itself as it likes."""
    return "".join(c if c.isprintable() else "?" for c in name)
