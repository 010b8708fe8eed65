"""`sockpid run --count`: sums that the kernel makes, printed each interval."""

from __future__ import annotations

import json
import struct
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Tuple

from .event import text
from .map import Map
from .signals import Signals
from .socket_tuple import TUPLE, SocketTuple, of_fields
from .start import say
from .tracer import Tracer

if TYPE_CHECKING:
    from .run import RunOptions

KEY = "=" + TUPLE + "IQ16s"


class Count(NamedTuple):
    """One row of the counts map: the socket, its owner's process id (0: unknown), start (ns) and name, and the
    events.
    """

    tuple: SocketTuple
    pid: int
    start_ns: int
    comm: str
    events: int


def read(counts: Map) -> List[Count]:
    """The rows of the counts map. They are never taken out, only grow, and so lose nothing between two looks."""
    rows = ((key, counts.lookup(key)) for key in set(counts.keys()))
    return [_decoded(key, value) for key, value in rows if value is not None]


def _decoded(key: bytes, value: bytes) -> Count:
    f = struct.unpack_from(KEY, key)
    return Count(of_fields(*f[:7]), f[7], f[8], text(f[9]), struct.unpack("=Q", value)[0])


def count(tracer: Tracer, what: RunOptions, signals: Signals) -> int:
    """Prints the increase of every row each interval, greatest first."""
    assert what.every is not None
    end = None if what.duration is None else time.monotonic() + what.duration
    before: Dict[Tuple[Any, ...], int] = {}
    raised, lost = tracer.raised(), tracer.lost()
    last = False
    while not last:
        until = time.monotonic() + what.every
        if end is not None:
            until = min(until, end)
        while time.monotonic() < until and not signals.stop:
            tracer.events(min(0.1, max(0.0, until - time.monotonic())))  # none come; it looks after the maps
        last = signals.stop or (end is not None and time.monotonic() >= end)
        rows: List[Count] = []
        for row in read(tracer.collection.maps["counts"]):
            key = row[:-1]
            rows.append(row._replace(events=row.events - before.get(key, 0)))
            before[key] = row.events
        rows = sorted((row for row in rows if row.events), key=lambda row: -row.events)
        if what.json:
            print(json.dumps({"schema": 1, "counts": [_count_document(row) for row in rows]}), flush=True)
        else:
            from .outputs import table

            print("\n".join([table.COUNT_HEADER, *map(table.count_row, rows)]), flush=True)
    say(f"{tracer.raised() - raised} retransmits, {tracer.lost() - lost} not counted for want of room")
    return 0


def _count_document(row: Count) -> Dict[str, Any]:
    document: Dict[str, Any] = dict(zip(row.tuple._fields, row.tuple))
    known = bool(row.pid)
    document.update(pid=row.pid if known else None, comm=row.comm if known else None, events=row.events)
    document["start_ns"] = row.start_ns if known else None
    return document
