"""`sockpid run`: retransmits with their owners, as a table or as JSON lines, or summed up."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import sys
import time
from typing import Any, Counter, Dict, List, NamedTuple, Optional, Tuple

from . import capability, output, selfcheck
from .collection import Options
from .describe import Describer
from .event import Count, Event
from .filters import Filter
from .pin import DIRECTORY, Pins
from .tracer import Tracer

POLL_SECONDS = 0.5
WATCH_SECONDS = 10.0


class RunOptions(NamedTuple):
    """json: JSON lines. duration: seconds, None: until a signal. sharers: look up who else has the socket. seed: ask
    for the sockets that exist already. summary: compare with the kernel's counters at the end. every: sum in the
    kernel and print every so many seconds. pin: directory to pin socket_to_pid in. filter: which events."""

    json: bool = False
    duration: Optional[float] = None
    sharers: bool = False
    seed: bool = True
    summary: bool = False
    every: Optional[float] = None
    pin: Optional[str] = None
    filter: Filter = Filter()


def run(options: Options, offsets_path: Optional[str], what: RunOptions) -> int:
    """Attaches, seeds, proves the offsets, then prints until a signal or the end of the duration."""
    stop: List[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    settings = what.filter.settings() + ((("SETTING_COUNT", 1),) if what.every else ())
    with contextlib.ExitStack() as stack:
        pins = stack.enter_context(Pins(what.pin or DIRECTORY)) if what.pin is not None else None
        tracer = stack.enter_context(Tracer.open(options, offsets_path))
        waiting = _begin(tracer, what)
        if settings:  # not before: the self-check reads records of its own sockets
            tracer.collection.replace_events(settings)
        if pins is not None:
            pins.pin(tracer.collection.maps["socket_to_pid"])
        _drop(tracer, what)
        how = ", ".join(f"{name}: {link or 'none'}" for name, link in tracer.collection.mechanisms().items())
        say(f"offsets from {tracer.offsets.source}; {how}")
        return _count(tracer, what, stop) if what.every else Session(tracer, what).follow(waiting, stop)


def _begin(tracer: Tracer, what: RunOptions) -> List[Event]:
    """Seeding and self-check. Returns the events of others that were raised meanwhile."""
    waiting: List[Event] = []
    warnings = tracer.seed() if what.seed else []
    warnings += [f"self-check: {line}" for line in selfcheck.demand(selfcheck.run(tracer, waiting))]
    for line in warnings + tracer.collection.flaws():
        say(line)
    return [tracer.resolve(seen) for seen in waiting]


def _drop(tracer: Tracer, what: RunOptions) -> None:
    """Gives up every capability that nothing from here on needs."""
    keep = capability.for_run(sharers=what.sharers, environ=False, summary=what.summary)
    dropped = capability.drop(keep | capability.for_maps(tracer.raised))
    if dropped.threads:
        say(f"{dropped.threads} threads that had started before keep {', '.join(capability.names(dropped.gone))}")


def say(line: str) -> None:
    print(f"sockpid: {line}", file=sys.stderr, flush=True)


class Session:
    """The events of one run, printed and counted."""

    def __init__(self, tracer: Tracer, what: RunOptions) -> None:
        self._tracer = tracer
        self._what = what
        self._describer = Describer(tracer, what.sharers)
        self._kinds: Dict[int, Counter[str]] = collections.defaultdict(collections.Counter)
        self._shown = self._unknown = 0
        self._warned = False
        self._started = time.monotonic()
        self._watch = self._started + WATCH_SECONDS
        self._since = 0

    def follow(self, waiting: List[Event], stop: List[int]) -> int:
        before = self._kernel_counters()
        end = None if self._what.duration is None else time.monotonic() + self._what.duration
        if not self._what.json:
            print(output.HEADER, flush=True)
        last = False
        while True:
            for seen in waiting:
                self._show(seen)
            sys.stdout.flush()
            if last:
                break
            self._watch_evictions()
            remaining = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            last = bool(stop) or remaining <= 0
            waiting = self._tracer.finish() if last else self._tracer.events(remaining)
        lost = self._tracer.lost()
        say(f"{self._shown} retransmits, {self._unknown} with unknown owner, {lost} lost")
        self._summary(before, lost)
        return 0

    def _show(self, seen: Event) -> None:
        if seen.ts_ns >= self._since:
            self._kinds[seen.tuple.netns][seen.kind] += 1
        document: Dict[str, Any] = self._describer.complete(seen, self._tracer.json(seen))
        if not self._what.filter.matches(seen, document):
            return
        self._shown += 1
        self._unknown += seen.owner is None
        print(json.dumps(document) if self._what.json else output.row(document))

    def _watch_evictions(self) -> None:
        """Says once that the maps are too small, and what would have been enough."""
        now = time.monotonic()
        if self._warned or now < self._watch:
            return
        self._watch = now + WATCH_SECONDS
        evicted = self._tracer.evicted()
        if evicted:
            self._warned = True
            enough = 1 << (2 * self._tracer.living()).bit_length()
            rate = evicted / (now - self._started)
            say(
                f"{evicted} living sockets lost their owner to make room (about {rate:.0f} a second); "
                f"--max-sockets {enough} would have sufficed"
            )

    def _kernel_counters(self) -> Dict[int, Any]:
        if not self._what.summary:
            return {}
        from . import netstat

        counters = dict(netstat.read())
        self._since = time.monotonic_ns()
        return counters

    def _summary(self, before: Dict[int, Any], lost: int) -> None:
        """Our counts beside the kernel's over the same time, per network namespace."""
        if not self._what.summary:
            return
        from . import netstat

        lines = netstat.reconcile(self._kinds, netstat.difference(netstat.read(), before), lost)
        evicted = self._tracer.evicted()
        if self._what.json:
            rows = [line._asdict() for line in lines]
            totals = {
                "raised": self._tracer.raised(),
                "delivered": self._tracer.delivered,
                "lost": lost,
                "evicted": evicted,
            }
            say(json.dumps({"summary": rows, **totals, "unknown": self._unknown}))
            return
        raised, read = self._tracer.raised(), self._tracer.delivered
        say(f"{raised} events raised, {read} read, {lost} lost; {evicted} owners evicted")
        for line in lines:
            if line.ours or line.kernel:
                verdict = {True: "agrees", False: "DIFFERS", None: "cannot be told"}[line.agrees]
                say(f"netns {line.netns} {line.name}: ours {line.ours}, the kernel's {line.kernel}: {verdict}")


def _count(tracer: Tracer, what: RunOptions, stop: List[int]) -> int:
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
        while time.monotonic() < until and not stop:
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))
        last = bool(stop) or (end is not None and time.monotonic() >= end)
        rows: List[Count] = []
        for row in tracer.counts():
            key = row[:-1]
            rows.append(row._replace(events=row.events - before.get(key, 0)))
            before[key] = row.events
        rows = sorted((row for row in rows if row.events), key=lambda row: -row.events)
        if what.json:
            print(json.dumps({"schema": 1, "counts": [_count_document(row) for row in rows]}), flush=True)
        else:
            print("\n".join([output.COUNT_HEADER, *(output.count_row(row) for row in rows)]), flush=True)
    say(f"{tracer.raised() - raised} retransmits, {tracer.lost() - lost} not counted for want of room")
    return 0


def _count_document(row: Count) -> Dict[str, Any]:
    document: Dict[str, Any] = dict(zip(row.tuple._fields, row.tuple))
    known = bool(row.pid)
    document.update(pid=row.pid if known else None, comm=row.comm if known else None, events=row.events)
    document["start_ns"] = row.start_ns if known else None
    return document
