"""`sockpid run`: retransmits with their owners, to any number of outputs, or summed up."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Counter, Dict, List, NamedTuple, Optional, Tuple

from . import capability, selfcheck
from .collection import Options
from .describe import Describer
from .event import Count, Event
from .filters import Filter
from .labels import Wanted
from .outputs import Gone, Outputs
from .pin import DIRECTORY, Pins
from .tracer import Tracer

POLL_SECONDS = 0.5
WATCH_SECONDS = 10.0
STATUS_SECONDS = 1.0


class RunOptions(NamedTuple):
    """json: sums and summary as JSON. duration: seconds, None: until a signal. sharers: look up who else has it open.
    seed: ask for the sockets that exist already. summary: compare with the kernel's counters at the end. every: sum in
    the kernel and print every so many seconds. pin: directory to pin socket_to_pid in. filter: which events. outputs:
    where events go, as on the command line. labels: what to say of owners. host: what to call this one, None: its name.
    """

    json: bool = False
    duration: Optional[float] = None
    sharers: bool = False
    seed: bool = True
    summary: bool = False
    every: Optional[float] = None
    pin: Optional[str] = None
    filter: Filter = Filter()
    outputs: Tuple[str, ...] = ("table",)
    labels: Wanted = Wanted()
    host: Optional[str] = None


def run(options: Options, offsets_path: Optional[str], what: RunOptions) -> int:
    """Attaches, seeds, proves the offsets, then tells events until a signal or the end of the duration."""
    stop: List[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    outputs = None if what.every else Outputs.open(what.outputs, say)
    settings = what.filter.settings() + ((("SETTING_COUNT", 1),) if what.every else ())
    with contextlib.ExitStack() as stack:
        if outputs is not None:
            stack.callback(outputs.close)
            reopen = outputs.reopen
            signal.signal(signal.SIGHUP, lambda _received, _frame: reopen())
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
        return _count(tracer, what, stop) if outputs is None else Session(tracer, what, outputs).follow(waiting, stop)


def _begin(tracer: Tracer, what: RunOptions) -> List[Event]:
    """Seeding and self-check. Returns the events of others that were raised meanwhile."""
    waiting: List[Event] = []
    warnings = tracer.seed() if what.seed else []
    results = selfcheck.run(tracer, waiting)
    warnings += [f"self-check: {line}" for line in selfcheck.demand(results, tracer.offsets.needs_proof)]
    for line in warnings + tracer.collection.flaws():
        say(line)
    return [tracer.resolve(seen) for seen in waiting]


def _drop(tracer: Tracer, what: RunOptions) -> None:
    """Gives up every capability that nothing from here on needs."""
    keep = capability.for_run(sharers=what.sharers, environ=bool(what.labels.env), summary=what.summary)
    dropped = capability.drop(keep | capability.for_maps(tracer.raised))
    if dropped.threads:
        say(f"{dropped.threads} threads that had started before keep {', '.join(capability.names(dropped.gone))}")


def say(line: str) -> None:
    print(f"sockpid: {line}", file=sys.stderr, flush=True)


class Session:
    """The events of one run, told and counted."""

    def __init__(self, tracer: Tracer, what: RunOptions, outputs: Outputs) -> None:
        self._tracer = tracer
        self._what = what
        self._outputs = outputs
        self._describer = Describer(tracer, what.sharers, what.labels)
        self._host = what.host or os.uname().nodename
        self._kinds: Dict[int, Counter[str]] = collections.defaultdict(collections.Counter)
        self._shown = self._unknown = 0
        self._warned = False
        self._started = time.monotonic()
        self._watch = self._started + WATCH_SECONDS
        self._report = self._started
        self._since = 0

    def follow(self, waiting: List[Event], stop: List[int]) -> int:
        before = self._kernel_counters()
        end = None if self._what.duration is None else time.monotonic() + self._what.duration
        status = 0
        try:
            self._outputs.start()
            self._tell_until(waiting, stop, end)
        except Gone as error:
            if error.exit_code:
                say(str(error))
            status = error.exit_code
        finally:
            self._outputs.close()
        lost = self._tracer.lost()
        say(f"{self._shown} retransmits, {self._unknown} with unknown owner, {lost} lost")
        self._summary(before, lost)
        return status

    def _tell_until(self, waiting: List[Event], stop: List[int], end: Optional[float]) -> None:
        last = False
        while True:
            self._outputs.offer([document for document in map(self._document, waiting) if document is not None])
            if last:
                break
            self._watch_evictions()
            self._report_status()
            remaining = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            last = bool(stop) or remaining <= 0
            waiting = self._tracer.finish() if last else self._tracer.events(remaining)
        self._report_status(at_once=True)

    def _document(self, seen: Event) -> Optional[Dict[str, Any]]:
        """The event as it is told; None if it does not meet the filter."""
        if seen.ts_ns >= self._since:
            self._kinds[seen.tuple.netns][seen.kind] += 1
        document: Dict[str, Any] = self._describer.complete(seen, self._tracer.json(seen))
        document["host"] = self._host
        if not self._what.filter.matches(seen, document):
            return None
        self._shown += 1
        self._unknown += seen.owner is None
        return document

    def _report_status(self, at_once: bool = False) -> None:
        """Once a second, what was counted, for outputs that pass it on."""
        now = time.monotonic()
        if at_once or now >= self._report:
            self._report = now + STATUS_SECONDS
            self._outputs.status(self._totals())

    def _totals(self) -> Dict[str, int]:
        tracer = self._tracer
        return {
            "raised": tracer.raised(),
            "delivered": tracer.delivered,
            "lost": tracer.lost(),
            "evicted": tracer.evicted(),
        }

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
        """What outputs dropped; with --summary, our counts beside the kernel's over the same time, per network
        namespace."""
        outputs = self._outputs.report()
        for row in outputs:
            if row["dropped"] and not (self._what.summary and self._what.json):
                say(f"output {row['output']}: {row['dropped']} of {row['offered']} events dropped")
        if not self._what.summary:
            return
        from . import netstat

        lines = netstat.reconcile(self._kinds, netstat.difference(netstat.read(), before), lost)
        totals = {**self._totals(), "lost": lost}
        if self._what.json:
            rows = [line._asdict() for line in lines]
            say(json.dumps({"summary": rows, **totals, "unknown": self._unknown, "outputs": outputs}))
            return
        say("{raised} events raised, {delivered} read, {lost} lost; {evicted} owners evicted".format(**totals))
        for row in outputs:
            say("output {output}: {offered} events, {written} written, {dropped} dropped".format(**row))
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
            tracer.events(min(0.1, max(0.0, until - time.monotonic())))  # none come; it looks after the maps
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
