"""What an output is."""

from __future__ import annotations

import os
import time

from sockpid.errors import SockpidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Deque, Dict, Mapping, Optional

SCHEMA = 1


class Gone(SockpidError):
    """Nobody will ever read this output again: the run ends."""

    exit_code = 0


class Busy(OSError):
    """A consumer that wants to be asked again, after so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Record:
    """One thing to write: an event as the documented object, or a gap (docs/events.md)."""

    __slots__ = ("_document", "_line", "is_gap")

    def __init__(self, document: Optional[Dict[str, Any]], line: Optional[bytes] = None) -> None:
        """One of both: an event's line stands for its document."""
        self._document = document
        self._line = line
        self.is_gap = document is not None and "dropped" in document

    @property
    def document(self) -> Dict[str, Any]:
        if self._document is None:
            assert self._line is not None
            import json  # late: a table alone does without

            self._document = json.loads(self._line)
        return self._document

    @property
    def line(self) -> bytes:
        """JSON with a line feed; made once for all outputs."""
        if self._line is None:
            import json

            self._line = json.dumps(self._document).encode() + b"\n"
        return self._line


def gap(host: str, missing: int) -> Record:
    """What stands where so many of the host's events are missing."""
    return Record({"schema": SCHEMA, "ts_ns": time.time_ns(), "dropped": missing, "host": host})


class Output:
    """One kind of consumer. Made in the main thread, where wrong arguments raise UsageError and what cannot be opened
    OutputError; its methods are called in the output's own thread, but for those that say otherwise.

    gather: seconds to wait for more records before they are written, so that they can go in one piece. every: seconds
    between calls of tick(), None: never. tells_gaps: gaps are given to write() too. dropped: records that were taken
    from the queue but not delivered. stdout: the output
    writes to our standard output, which only one can. wants_documents: not only the lines of records.
    """

    gather = 0.0
    every: Optional[float] = None
    tells_gaps = False
    stdout = False
    wants_documents = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec = name
        """As on the command line."""
        self.host = os.uname().nodename
        """What events call this host. Replaced by the main thread, where that is another name."""
        self.dropped = 0
        self.warn: Callable[[str], None] = lambda _line: None
        """Tells the user; set by whoever runs the output."""
        self.status: Mapping[str, int] = {}
        """What is known of the probe: raised, delivered, lost, evicted, and "dropped:NAME" per output. Replaced whole
        by the main thread."""

    def start(self) -> None:
        """Called once, in the main thread, before the output's own thread is: starts the threads that it has besides.
        None may be started earlier, since the capabilities of the process are given up until then."""

    def write(self, pending: Deque[Record]) -> None:
        """Takes from the left what has been delivered. Raises OSError to be called again, later, with the rest; Gone
        if that would be in vain."""
        raise NotImplementedError

    def tick(self) -> None:
        """Called about every `every` seconds. Raises OSError."""

    def reopen(self) -> None:
        """After SIGHUP: lets go of files and opens them anew. Raises OSError."""

    def stop(self) -> None:
        """Called by another thread: the end is near, so what waits for a consumer shall wait no more."""

    def close(self) -> None:
        """After the last write. Must not block."""
