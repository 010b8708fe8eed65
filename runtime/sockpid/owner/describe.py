"""What /proc adds to an event: is the owner still there, what is it called, where does it run, who else has the
socket.
"""

from __future__ import annotations

import collections
import time

from sockpid.event.event import Event, Executed
from sockpid.host import cgroup, descriptors, kernel, proc
from sockpid.namedtuple import NamedTuple
from sockpid.probe.tracer import Tracer

from . import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, OrderedDict, Sequence, Tuple

KEEP_SECONDS = 1.0
"""So long a look at a process is believed."""

FORGET_SECONDS = 240.0
"""So long after the last look it is forgotten what a process was, which may have exited: two of the longest pauses that
the kernel makes before it sends a segment again (TCP_RTO_MAX)."""

KEEP_PROCESSES = 4096


class Known(NamedTuple):
    """What was found out of a process, and until when (time.monotonic()) it is believed. A process that executes
    another program keeps its start time, so nothing is believed for long while it lives.

    comm, ns_pid, cgroup: as they were when it was last found alive, looked_ns (CLOCK_MONOTONIC; 0: never).
    """

    exited: Optional[bool]
    comm: Optional[str]
    ns_pid: Optional[int]
    cgroup: Optional[str]
    looked_ns: int
    labels: Optional[Dict[str, Any]]
    until: float


class Describer:
    """Completes documents of events. A process is known by pid and start time together, never by pid alone."""

    def __init__(self, tracer: Tracer, sharers: bool, wanted: labels.Wanted) -> None:
        self._tracer = tracer
        self._sharers = sharers
        self._wanted = wanted
        self._cgroups = cgroup.CgroupPaths()
        self._known: OrderedDict[Tuple[int, int], Known] = collections.OrderedDict()
        """By pid and start; the latest look last."""
        self._starts: OrderedDict[Tuple[int, int], int] = collections.OrderedDict()
        """By pid and clock tick: when a process that was seen to use a socket started, to the nanosecond."""
        self._opened: Dict[int, Tuple[proc.Holder, ...]] = {}
        self._opened_ns = -1

    def complete(self, seen: Event, document: Dict[str, Any]) -> Dict[str, Any]:
        """Adds to the document of an event (see docs/events.md): exited, ns_pid, cgroup, labels, sharers. Brings
        comm and control group up to date, and start_ns, which /proc tells to the clock tick only.

        A process that has exited keeps the name it had, and its pid is never looked at as if it still were
        it.
        """
        document.update(exited=None, ns_pid=None, cgroup=None, labels=None, sharers=None)
        pid, when_ns = document["pid"], seen.owner.when_ns if seen.owner is not None else 0
        if pid is not None:
            executed = self._tracer.executed(pid)
            start_ns = document["start_ns"] = self._start(pid, document["start_ns"], document["how"], executed)
            known = self._process(pid, start_ns)
            document["exited"] = known.exited
            if known.exited is False:
                document["ns_pid"] = known.ns_pid
            document["comm"] = _newest(
                (when_ns, document["comm"]),
                (known.looked_ns, known.comm),
                (executed.when_ns, executed.comm) if executed and executed.start_ns == start_ns else (0, None),
            )
            self._place(document, known, when_ns)
            document["labels"] = self._labels(known.labels, document["cgroup"])
        if self._sharers and seen.inode:
            holders = self._holders(seen.inode, seen.ts_ns)
            document["sharers"] = [{"pid": holder.pid, "comm": holder.comm} for holder in holders]
            if pid is not None and holders:
                named = any(_is_one(holder, pid, document["start_ns"]) for holder in holders)
                document["ambiguous"] = max(document["ambiguous"], len(holders) + (not named))
        return document

    def believed_until(self, pid: Optional[int], start_ns: Optional[int]) -> float:
        """How long what complete() said of a process may be said again, by time.monotonic()."""
        known = self._known.get((pid, start_ns)) if pid is not None and start_ns is not None else None
        return known.until if known is not None else time.monotonic() + KEEP_SECONDS

    def _holders(self, inode: int, since_ns: int) -> Tuple[proc.Holder, ...]:
        """Who has a socket open, after the event: one look serves all events that have been raised by then."""
        if self._opened_ns < since_ns:
            self._opened_ns = kernel.monotonic_ns()
            self._opened = descriptors.look().holders
        return self._opened.get(inode, ())

    def _start(self, pid: int, start_ns: int, how: Optional[str], executed: Optional[Executed]) -> int:
        """When the process started: exactly, if anything has told that by now."""
        ticks = proc.ticks_of(start_ns)
        if how not in ("seed", "holder"):
            self._starts[pid, ticks] = start_ns
            self._starts.move_to_end((pid, ticks))
            if len(self._starts) > KEEP_PROCESSES:
                self._starts.popitem(last=False)
            return start_ns
        if executed is not None and proc.ticks_of(executed.start_ns) == ticks:
            return executed.start_ns
        return self._starts.get((pid, ticks), start_ns)

    def _place(self, document: Dict[str, Any], known: Known, when_ns: int) -> None:
        """The control group that the owner was in when last seen: by the probe, or by us if it was alive later."""
        used_in = self._cgroups.path(document["cgroup_id"])
        found = document["cgroup"] = _newest((when_ns, used_in), (known.looked_ns, known.cgroup))
        if found is not None and found != used_in:
            document["cgroup_id"] = self._cgroups.number(found)

    def _labels(self, found: Optional[Dict[str, Any]], path: Optional[str]) -> Optional[Dict[str, Any]]:
        """Of a process that is gone, the event's control group still tells where it ran."""
        if found is not None and found["reason"] == "exited" and path is not None:
            from sockpid.host import container

            found = dict(found)
            labels.place(found, container.place(path))
        return found

    def _process(self, pid: int, start_ns: int) -> Known:
        now = time.monotonic()
        known = self._known.get((pid, start_ns))
        if known is None or known.until < now:
            known = self._look(pid, start_ns, known, now)
            self._known[pid, start_ns] = known
            self._known.move_to_end((pid, start_ns))
            self._forget(now)
        return known

    def _forget(self, now: float) -> None:
        while True:
            oldest, known = next(iter(self._known.items()))
            if len(self._known) <= KEEP_PROCESSES and known.until + FORGET_SECONDS > now:
                break
            del self._known[oldest]

    def _look(self, pid: int, start_ns: int, before: Optional[Known], now: float) -> Known:
        ended = self._tracer.ended_ns(pid, start_ns) is not None
        looked_ns = kernel.monotonic_ns()
        exited = proc.is_exited(pid, start_ns, ended)
        found = labels.read(self._wanted, pid, start_ns, ended) if self._wanted else None
        if found is not None and found["reason"] == "exited" and before is not None and before.labels is not None:
            found = before.labels  # it is not there any more, but it was the one
        until = now + KEEP_SECONDS
        if exited is False:
            return Known(
                exited, proc.comm(pid), proc.namespace_pid(pid), cgroup.of_process(pid), looked_ns, found, until
            )
        if before is not None:
            return before._replace(exited=exited, labels=found, until=until)
        return Known(exited, None, None, None, 0, found, until)


def _newest(*told: Tuple[int, Optional[str]]) -> Optional[str]:
    """What was told last, of what was told at all."""
    known: Sequence[Tuple[int, str]] = [(when_ns, text) for when_ns, text in told if text is not None]
    return max(known)[1] if known else None


def _is_one(holder: proc.Holder, pid: int, start_ns: int) -> bool:
    return holder.pid == pid and 0 <= holder.start_ticks - proc.ticks_of(start_ns) <= 1
