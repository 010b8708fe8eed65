"""The events of one run: told to outputs, and counted."""

from __future__ import annotations

import collections
import os
import time

from sockpid import uapi
from sockpid.errors import SockpidError
from sockpid.event.event import Event
from sockpid.event.filters import Filter
from sockpid.event.lines import EventLines
from sockpid.host import kernel
from sockpid.outputs import Gone, Outputs
from sockpid.owner import witness
from sockpid.owner.certainty import Certainty
from sockpid.owner.describe import Describer
from sockpid.probe.hook_watch import HookWatch
from sockpid.probe.tracer import Tracer

from .notify import Notifier
from .signals import Signals
from .start import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Counter, Dict, List, Optional

    from .options import RunOptions

POLL_SECONDS = 0.5
WATCH_SECONDS = 10.0
MISSES_SECONDS = 60.0
"""So often at most it is said that runs of hooks were passed over."""

STATUS_SECONDS = 1.0
CHANGEABLE = ("filter", "outputs", "labels", "host", "sharers")
"""Of RunOptions: what a reload takes up."""


class Session:
    """The events of one run, told and counted."""

    def __init__(
        self,
        tracer: Tracer,
        what: RunOptions,
        outputs: Outputs,
        notifier: Notifier,
        reread: Optional[Callable[[], RunOptions]] = None,
        beat: Optional[Callable[[Dict[str, Any], str], None]] = None,
    ) -> None:
        """reread: gives what is asked for now, at SIGHUP; None: that does not change. beat: see Health."""
        self._notifier, self._reread, self._beat = notifier, reread, beat
        self._last_event_ns = 0
        self._tracer = tracer
        self._what = what
        self._outputs = outputs
        self._certainty = Certainty(tracer, witness.begin(say) if what.witness else None)
        self._hooks = HookWatch(tracer)
        self._describer = Describer(tracer, what.sharers, what.labels)
        self._name_host()
        self._lines = self._event_lines()
        self._kinds: Dict[int, Counter[str]] = collections.defaultdict(collections.Counter)
        self._shown = self._unknown = self._uncertain = 0
        self._warned = False
        self._started = time.monotonic()
        self._watch = self._started + WATCH_SECONDS
        self._report = self._started
        self._misses, self._misses_due = 0, self._started
        self._since = 0

    def _name_host(self) -> None:
        self._host = self._what.host or os.uname().nodename
        self._outputs.name_host(self._host)

    def follow(self, waiting: List[Event], signals: Signals) -> int:
        self._tracer.collection.reader.wake_by(signals.fileno())
        before = self._kernel_counters()
        end = None if self._what.duration is None else time.monotonic() + self._what.duration
        status = 0
        try:
            self._outputs.start()
            self._notifier.ready("watching TCP retransmits")
            self._tell_until(waiting, signals, end)
        except Gone as error:
            if error.exit_code:
                say(str(error))
            status = error.exit_code
        finally:
            self._notifier.stopping()
            self._hooks.close()
            self._outputs.close()
            self._tell_health("ended")
        lost = self._tracer.lost()
        self._watch_misses(last=True)
        uncertain = f"{self._uncertain} with an uncertain owner, " if self._uncertain else ""
        say(f"{self._shown} retransmits, {uncertain}{self._unknown} with unknown owner, {lost} lost")
        self._summary(before, lost)
        return status

    def _tell_until(self, waiting: List[Event], signals: Signals, end: Optional[float]) -> None:
        last = False
        while True:
            self._tell(waiting)
            if last:
                break
            self._watch_evictions()
            for line in self._hooks.look():
                say(line)
            self._watch_misses()
            self._report_status()
            self._notifier.alive()
            if signals.reload():
                self._reload()
            remaining = min(POLL_SECONDS, self._notifier.due())
            if end is not None:
                remaining = min(remaining, end - time.monotonic())
            last = signals.stop or (end is not None and time.monotonic() >= end)
            waiting = self._tracer.finish() if last else self._tracer.events(max(0.0, remaining))
        self._report_status("ending")

    def _reload(self) -> None:
        """Outputs, filters and labels as they are asked for now. The probe goes on; what it raises meanwhile waits."""
        self._notifier.reloading()
        try:
            if self._reread is None:
                self._outputs.reopen()
            else:
                wanted = self._reread()
                self._outputs.replace(wanted.outputs)
                self._change(wanted)
                say("reloaded")
        except SockpidError as error:
            say(f"reload refused, all stays as it was: {error}")
        self._notifier.ready("watching TCP retransmits")

    def _change(self, wanted: RunOptions) -> None:
        fixed = [
            name
            for name, now, then in zip(wanted._fields, self._what, wanted)
            if name not in CHANGEABLE and now != then
        ]
        if fixed:
            say(f"{', '.join(fixed)}: as before; the next start takes it up")
        self._what = self._what._replace(**{name: getattr(wanted, name) for name in CHANGEABLE})
        reads = wanted.sharers or wanted.labels.env
        if reads and not kernel.effective_capabilities() >> uapi.CAP_SYS_PTRACE & 1:
            say("CAP_SYS_PTRACE was given up at the start: sharers and label-env of other users need a restart")
        self._describer = Describer(self._tracer, wanted.sharers, wanted.labels)
        self._name_host()
        self._lines = self._event_lines()

    def _event_lines(self) -> EventLines:
        return EventLines(self._document, self._describer.believed_until, self._certainty.glance)

    def _tell(self, seen: List[Event]) -> None:
        what = self._what
        if self._hooks.provokes:
            seen = [each for each in seen if not self._hooks.is_ours(each)]
        if self._outputs.want_documents or what.sharers or what.summary or what.filter != Filter():
            self._outputs.offer([document for document in map(self._told, seen) if document is not None])
            return
        unknown, uncertain = self._lines.unknown, self._certainty.uncertain
        self._outputs.offer_lines(self._lines.lines(seen))
        self._shown += len(seen)
        self._uncertain += self._certainty.uncertain - uncertain
        self._unknown += self._lines.unknown - unknown
        self._last_event_ns = self._lines.last_ns or self._last_event_ns

    def _document(self, seen: Event) -> Dict[str, Any]:
        document = self._certainty.document(seen, self._describer)
        document["host"] = self._host
        return document

    def _told(self, seen: Event) -> Optional[Dict[str, Any]]:
        """The event as it is told; None if it does not meet the filter."""
        if seen.ts_ns >= self._since:
            self._kinds[seen.tuple.netns][seen.kind] += 1
        if not self._what.filter.matches_socket(seen):
            return None
        document = self._document(seen)
        self._last_event_ns = document["ts_ns"]
        if not self._what.filter.matches(seen, document):
            return None
        self._shown += 1
        self._unknown += document["how"] is None
        self._uncertain += document["certain"] is False
        return document

    def _report_status(self, state: str = "running") -> None:
        """Once a second, what was counted, for outputs that pass it on."""
        now = time.monotonic()
        if state != "running" or now >= self._report:
            self._report = now + STATUS_SECONDS
            self._tracer.watch_misses()
            totals = self._totals()
            self._outputs.status(totals)
            self._notifier.status(
                f"{self._shown} retransmits, {self._unknown} with unknown owner, {totals['lost']} lost"
            )
            self._tell_health(state)

    def _tell_health(self, state: str) -> None:
        if self._beat is not None:
            told = {"told": self._shown, "unknown": self._unknown, "last_event_ns": self._last_event_ns}
            self._beat({**told, **self._totals(), "outputs": self._outputs.report()}, state)

    def _totals(self) -> Dict[str, int]:
        tracer = self._tracer
        return {
            "raised": tracer.raised(),
            "delivered": tracer.delivered,
            "lost": tracer.lost(),
            "evicted": tracer.evicted(),
            **dict(self._certainty.counts()),
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

    def _watch_misses(self, last: bool = False) -> None:
        """Says that runs of hooks were passed over, each time that there were more, but not too often."""
        now, misses = time.monotonic(), self._tracer.misses
        if misses == self._misses or (now < self._misses_due and not last):
            return
        self._misses_due = now + MISSES_SECONDS
        say(
            f"{misses - self._misses} runs of hooks that learn owners were passed over by the kernel; owners that were "
            "not seen to use their socket since are told as uncertain"
        )
        self._misses = misses

    def _kernel_counters(self) -> Dict[int, Any]:
        if not self._what.summary:
            return {}
        from sockpid.host import netstat

        counters = dict(netstat.read())
        self._since = kernel.monotonic_ns()
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
        from sockpid.host import netstat

        lines = netstat.reconcile(self._kinds, netstat.difference(netstat.read(), before), lost)
        totals = {**self._totals(), "lost": lost}
        if self._what.json:
            rows = [line._asdict() for line in lines]
            import json

            say(json.dumps({"summary": rows, **totals, "unknown": self._unknown, "outputs": outputs}))
            return
        say("{raised} events raised, {delivered} read, {lost} lost; {evicted} owners evicted".format(**totals))
        say(
            "{confirmed} owners confirmed by who has the socket open, {contradicted} contradicted, {unchecked} not "
            "checked; {uncertain} uncertain; {missed} runs of hooks passed over".format(**totals)
        )
        for row in outputs:
            say("output {output}: {offered} events, {written} written, {dropped} dropped".format(**row))
        for line in lines:
            if line.ours or line.kernel:
                verdict = {True: "agrees", False: "DIFFERS", None: "cannot be told"}[line.agrees]
                say(f"netns {line.netns} {line.name}: ours {line.ours}, the kernel's {line.kernel}: {verdict}")
