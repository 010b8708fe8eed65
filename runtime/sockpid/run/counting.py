"""`sockpid run --count`: sums that the kernel makes, printed each interval."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Sequence, Tuple

from sockpid.bpf.map import Map
from sockpid.event.count import Count, decoded, document
from sockpid.host import proc
from sockpid.probe.tracer import Tracer

from .signals import Signals
from .start import say

if TYPE_CHECKING:
    from .options import RunOptions


def read(counts: Map) -> List[Count]:
    """The rows of the counts map. They are never taken out, only grow, and so lose nothing between two looks."""
    rows = ((key, counts.lookup(key)) for key in set(counts.keys()))
    return [decoded(key, value) for key, value in rows if value is not None]


def completed(tracer: Tracer, rows: Sequence[Count]) -> List[Count]:
    """One row for each process and socket, greatest first, with what the programs do not know: owners of older sockets,
    and what processes are called by now."""
    names: Dict[Tuple[int, int], str] = {}
    sums: Dict[Count, int] = {}
    for row in _owned(tracer, rows):
        who = row.pid, row.start_ns
        if row.pid and who not in names:
            names[who] = _name(tracer, row)
        # Of a socket that has been closed the inode is not known any more.
        same = row._replace(comm=names[who], inode=0, events=0) if row.pid else row._replace(events=0)
        sums[same] = sums.get(same, 0) + row.events
    return sorted((row._replace(events=events) for row, events in sums.items()), key=lambda row: -row.events)


def _owned(tracer: Tracer, rows: Sequence[Count]) -> Iterator[Count]:
    """The rows. One whose owner is unknown gets the owner that the socket had at the start, or else the oldest of those
    who have it open now."""
    unknown: List[Count] = []
    for row in rows:
        found = None
        if not row.pid and tracer.seeds is not None:
            found = tracer.seeds.find(row.inode, row.tuple, tracer.public)
        if found is not None:
            yield _held(row, found.holders)
        elif row.pid or not row.inode:
            yield row
        else:
            unknown.append(row)
    held = proc.holders({row.inode for row in unknown}) if unknown else {}  # one pass for all
    for row in unknown:
        yield _held(row, held[row.inode]) if row.inode in held else row


def _held(row: Count, holders: Sequence[proc.Holder]) -> Count:
    oldest = holders[0]
    start_ns = proc.ns_of(oldest.start_ticks)
    return row._replace(pid=oldest.pid, start_ns=start_ns, comm=oldest.comm, holders=len(holders))


def _name(tracer: Tracer, row: Count) -> str:
    if proc.is_exited(row.pid, row.start_ns) is False:
        return proc.comm(row.pid) or row.comm
    return tracer.name_of(row.pid, row.start_ns) or row.comm


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
            key = tuple(row._replace(events=0))
            rows.append(row._replace(events=row.events - before.get(key, 0)))
            before[key] = row.events
        rows = completed(tracer, [row for row in rows if row.events])
        if what.json:
            print(json.dumps({"schema": 1, "counts": [document(row) for row in rows]}), flush=True)
        else:
            from sockpid.outputs import table

            print("\n".join([table.COUNT_HEADER, *map(table.count_row, rows)]), flush=True)
    say(f"{tracer.raised() - raised} retransmits, {tracer.lost() - lost} not counted for want of room")
    return 0
