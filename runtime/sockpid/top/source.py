"""Where `top` has its events from: the probe on this host, or what was recorded."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

from sockpid.errors import UsageError

if TYPE_CHECKING:
    from sockpid.event.event import Event
    from sockpid.event.filters import Filter
    from sockpid.owner.certainty import Certainty
    from sockpid.owner.describe import Describer
    from sockpid.probe.tracer import Tracer

Document = Dict[str, Any]


class Live:
    """Events of an attached probe."""

    name = "live"
    at_once = False
    speed = 1.0

    def __init__(
        self,
        tracer: Tracer,
        certainty: Certainty,
        describer: Describer,
        wanted: Filter,
        host: str,
        waiting: List[Event],
    ) -> None:
        self._tracer, self._certainty, self._describer = tracer, certainty, describer
        self._filter, self.host = wanted, host
        self._waiting = waiting
        self.over = False

    def fileno(self) -> int:
        """Readable when there may be events."""
        return self._tracer.collection.reader.fileno()

    def due(self) -> Optional[float]:
        """Seconds until there are events for sure; None: that shows at fileno()."""
        return 0.0 if self._waiting else None

    def now_ns(self) -> int:
        return time.time_ns()

    def take(self, _until_ns: Optional[int] = None) -> List[Document]:
        """What has arrived; never waits."""
        seen, self._waiting = self._waiting + self._tracer.events(0.0), []
        told: List[Document] = []
        for one in seen:
            if not self._filter.matches_socket(one):
                continue
            document = self._certainty.document(one, self._describer)
            document["host"] = self.host
            if self._filter.matches(one, document):
                told.append(document)
        return told

    def notes(self) -> Tuple[str, ...]:
        lost, evicted = self._tracer.lost(), self._tracer.evicted()
        found = [f"{lost} lost"] if lost else []
        if self._certainty.uncertain:
            found.append(f"{self._certainty.uncertain} of uncertain owner")
        return (*found, *([f"{evicted} owners evicted"] if evicted else []))


class Recorded:
    """Events of a file, as long after each other as they were; `speed` times as fast, 0: all at once."""

    def __init__(self, path: str, speed: float) -> None:
        """path: FILE, FILE.gz or "-". Raises UsageError if there is no event in it."""
        self.name, self.host, self.over = path, "", False
        self.speed, self._bad = speed, 0
        self.at_once = not speed
        self._events = self._read(path)
        self._next: Optional[Document] = next(self._events, None)
        if self._next is None:
            raise UsageError(f"no events in {path}" + (f"; {self._bad} lines are none" if self._bad else ""))
        self._first_ns, self._started = int(self._next["ts_ns"]), time.monotonic()
        self.host = str(self._next.get("host") or "")
        self._reached = self._first_ns

    def _read(self, path: str) -> Iterator[Document]:
        try:
            opened: Any = sys.stdin.buffer
            if path != "-":
                opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
            with opened as file:
                for line in file:
                    try:
                        event = json.loads(line)
                        int(event["ts_ns"])
                    except (ValueError, KeyError, TypeError):
                        self._bad += bool(line.strip())
                        continue
                    yield event
        except (OSError, EOFError) as error:
            raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    def fileno(self) -> int:
        return -1

    def now_ns(self) -> int:
        """The time that has come, by the clock of the events."""
        if not self.speed or self.over:
            return self._reached
        return self._first_ns + int((time.monotonic() - self._started) * self.speed * 1e9)

    def due(self) -> Optional[float]:
        if self._next is None or not self.speed:
            return None
        at = self._started + (int(self._next["ts_ns"]) - self._first_ns) / 1e9 / self.speed
        return max(0.0, at - time.monotonic())

    def take(self, until_ns: Optional[int] = None) -> List[Document]:
        """What has happened by now, or by `until_ns`."""
        until = self.now_ns() if until_ns is None else until_ns
        told: List[Document] = []
        while self._next is not None and int(self._next["ts_ns"]) <= until:
            told.append(self._next)
            self._next = next(self._events, None)
        self.over = self._next is None
        self._reached = int(told[-1]["ts_ns"]) if self.over and told else max(self._reached, until)
        return told

    def notes(self) -> Tuple[str, ...]:
        return (f"{self._bad} lines are no events",) if self._bad else ()


def keyboard() -> Optional[int]:
    """A descriptor of our terminal to read keys from: standard input, or the terminal itself where that is a file.
    None without one."""
    if os.isatty(0):
        return 0
    try:
        return os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
