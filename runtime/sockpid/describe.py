"""What /proc adds to an event: is the owner still there, what is it called, where does it run, who else has the
socket.
"""

from __future__ import annotations

import collections
import time

from . import labels, proc
from .cgroup import CgroupPaths
from .event import Event
from .named import NamedTuple
from .tracer import Tracer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, OrderedDict, Tuple

KEEP_SECONDS = 1.0
"""So long a look at a process is believed."""

FORGET_SECONDS = 240.0
"""So long after the last look it is forgotten what a process was, which may have exited: two of the longest pauses that
the kernel makes before it sends a segment again (TCP_RTO_MAX)."""

KEEP_PROCESSES = 4096


class Known(NamedTuple):
    """What was found out of a process, and until when (time.monotonic()) it is believed. A process that executes
    another program keeps its start time, so nothing is believed for long while it lives."""

    exited: Optional[bool]
    comm: Optional[str]
    ns_pid: Optional[int]
    labels: Optional[Dict[str, Any]]
    until: float


class Describer:
    """Completes documents of events. A process is known by pid and start time together, never by pid alone."""

    def __init__(self, tracer: Tracer, sharers: bool, wanted: labels.Wanted) -> None:
        self._tracer = tracer
        self._sharers = sharers
        self._wanted = wanted
        self._cgroups = CgroupPaths()
        self._known: OrderedDict[Tuple[int, int], Known] = collections.OrderedDict()
        """By pid and start; the latest look last."""

    def complete(self, seen: Event, document: Dict[str, Any]) -> Dict[str, Any]:
        """Adds to the document of an event (see docs/events.md): exited, ns_pid, cgroup, labels, sharers. Brings
        comm up to date.

        A process that has exited keeps the name it had, and its pid is never looked at as if it still were
        it.
        """
        document.update(exited=None, ns_pid=None, cgroup=None, labels=None, sharers=None)
        pid, start_ns = document["pid"], document["start_ns"]
        if pid is not None:
            known = self._process(pid, start_ns)
            document["exited"] = known.exited
            if known.exited is False:
                document["comm"] = known.comm or document["comm"]
                document["ns_pid"] = known.ns_pid
            else:
                document["comm"] = self._tracer.name_of(pid, start_ns) or document["comm"]
            document["cgroup"] = self._cgroups.path(document["cgroup_id"])
            document["labels"] = self._labels(known.labels, document["cgroup"])
        if self._sharers and seen.inode:
            holders = proc.holders({seen.inode}).get(seen.inode, [])
            document["sharers"] = [{"pid": holder.pid, "comm": holder.comm} for holder in holders]
            if pid is not None and holders:
                others = {holder.pid for holder in holders} | {pid}
                document["ambiguous"] = max(document["ambiguous"], len(others))
        return document

    def believed_until(self, pid: Optional[int], start_ns: Optional[int]) -> float:
        """How long what complete() said of a process may be said again, by time.monotonic()."""
        known = self._known.get((pid, start_ns)) if pid is not None and start_ns is not None else None
        return known.until if known is not None else time.monotonic() + KEEP_SECONDS

    def _labels(self, found: Optional[Dict[str, Any]], cgroup: Optional[str]) -> Optional[Dict[str, Any]]:
        """Of a process that is gone, the event's control group still tells where it ran."""
        if found is not None and found["reason"] == "exited" and cgroup is not None:
            from . import container

            found = dict(found)
            labels.place(found, container.place(cgroup))
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
        exited = proc.is_exited(pid, start_ns)
        alive = exited is False
        found = labels.read(self._wanted, pid, start_ns) if self._wanted else None
        if found is not None and found["reason"] == "exited" and before is not None and before.labels is not None:
            found = before.labels  # it is not there any more, but it was the one
        return Known(
            exited,
            proc.comm(pid) if alive else None,
            proc.namespace_pid(pid) if alive else None,
            found,
            now + KEEP_SECONDS,
        )
