"""`sockpid run`: retransmits with their owners, as a table or as JSON lines."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import List, Optional

from . import selfcheck
from .collection import Options
from .event import Event
from .tracer import Tracer

COLUMNS = "{:<12} {:<6} {:>8} {:<16} {:<26} {:<26} {:<11} {:<8} {:>11}"
HEADER = COLUMNS.format("TIME", "KIND", "PID", "COMM", "LOCAL", "REMOTE", "STATE", "HOW", "INTERRUPTED")


def run(options: Options, offsets_path: Optional[str], as_json: bool, duration: Optional[float]) -> int:
    """Attaches, proves the offsets, then prints events until a signal or the end of `duration` (seconds)."""
    stop: List[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    with Tracer.open(options, offsets_path) as tracer:
        waiting: List[Event] = []
        for skipped in selfcheck.demand(selfcheck.run(tracer, waiting)):
            print(f"sockpid: self-check: {skipped}", file=sys.stderr)
        end = None if duration is None else time.monotonic() + duration
        how = ", ".join(f"{name}: {link or 'none'}" for name, link in tracer.collection.mechanisms().items())
        print(f"sockpid: offsets from {tracer.offsets.source}; {how}", file=sys.stderr)
        if not as_json:
            print(HEADER, flush=True)
        shown = unknown = 0
        last = False
        while True:
            for seen in waiting:
                shown += 1
                unknown += seen.owner is None
                print(json.dumps(tracer.json(seen)) if as_json else row(tracer, seen))
            sys.stdout.flush()
            if last:
                break
            remaining = 0.5 if end is None else min(0.5, end - time.monotonic())
            last = bool(stop) or remaining <= 0
            waiting = tracer.events(0 if last else remaining)
        lost = tracer.lost()
        print(f"sockpid: {shown} retransmits, {unknown} with unknown owner, {lost} lost", file=sys.stderr)
    return 0


def row(tracer: Tracer, seen: Event) -> str:
    """One line of the table."""
    value = tracer.json(seen)
    moment = int(str(value["ts_ns"]))
    clock = time.strftime("%H:%M:%S", time.localtime(moment // 10**9)) + f".{moment // 10**6 % 1000:03d}"
    if value["pid"] is not None:
        owner, name = str(value["pid"]), printable(str(value["comm"]))
    else:
        owner, name = ("-", "(kernel)") if value["how"] == "kernel" else ("?", f"({value['reason']})")
    local, remote = (end(seen.tuple.saddr, seen.tuple.sport), end(seen.tuple.daddr, seen.tuple.dport))
    return COLUMNS.format(
        clock, seen.kind, owner, name, local, remote, seen.state, value["how"] or "-", seen.interrupted_pid
    )


def end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def printable(name: str) -> str:
    """A process's name without what a terminal would obey: a process names itself as it likes."""
    return "".join(c if c.isprintable() else "?" for c in name)
