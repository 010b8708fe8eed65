"""The bounded queue before an output, and the thread behind it."""

from __future__ import annotations

import collections
import threading
import time

from .base import Busy, Gone, Output, Record, gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Deque, List, Optional

BATCH = 1024
"""Records that are taken from the queue at once."""

RETRY_SECONDS = 0.25, 15.0
"""First and longest pause after a refusal; each is twice the one before."""


class Sink:
    """Every record offered is in the end written, or counted as dropped: offered == written + dropped, once closed."""

    def __init__(self, output: Output, limit: int, warn: Callable[[str], None]) -> None:
        """limit: records to keep at most. warn: told once of each refusal, and when it is over."""
        self.output = output
        self.offered = self.written = 0
        self.error: Optional[BaseException] = None
        self._limit = limit
        self._warn = output.warn = warn
        self._overflowed = self._gap = 0
        self._queue: Deque[Record] = collections.deque()
        self._pending: Deque[Record] = collections.deque()
        self._changed = threading.Condition()
        self._closing = self._reopening = False
        self._tick = self._pause = 0.0
        self._thread = threading.Thread(target=self._work, name=f"output-{output.name}", daemon=True)

    @property
    def dropped(self) -> int:
        return self._overflowed + self.output.dropped

    def start(self) -> None:
        self.output.start()
        self._thread.start()

    def offer(self, records: List[Record]) -> None:
        """Never blocks for longer than the thread takes to move a batch."""
        with self._changed:
            self.offered += len(records)
            room = 0 if self.error else max(0, self._limit - len(self._queue))
            if self._gap and room > len(records) // 2 and self.output.tells_gaps:
                self._queue.append(gap(self.output.host, self._gap))
                self._gap = 0
            if room < len(records):
                self._overflowed += len(records) - room
                self._gap += len(records) - room
                records = records[:room]
            self._queue.extend(records)
            self._changed.notify()

    def reopen(self) -> None:
        with self._changed:
            self._reopening = True
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Lets the thread write what is queued, for so long at most. What is left then is dropped."""
        if self._thread.ident is None:
            self.output.close()
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        deadline = time.monotonic() + seconds
        self._thread.join(max(0.0, seconds - 0.3))
        if self._thread.is_alive():
            self.output.stop()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self.error = self.error or Gone("closed")  # a thread that still hangs shall take no more
            self._overflowed += _events(self._queue) + _events(self._pending)
            self._queue.clear()
            self._pending = collections.deque()

    def _work(self) -> None:
        try:
            while not self._turn():
                pass
        except BaseException as error:  # carried to the main thread
            self.error = error
        finally:
            self.output.close()

    def _turn(self) -> bool:
        """Waits, writes a batch; true when it was the last."""
        with self._changed:
            self._wait()
            self._reopening, reopen = False, self._reopening
            if not self._pending:
                for _ in range(min(BATCH, len(self._queue))):
                    self._pending.append(self._queue.popleft())
            pending = self._pending
            last = self._closing and not pending
        try:
            if reopen:
                self.output.reopen()
            if self.output.every is not None and (time.monotonic() >= self._tick or last):
                self._tick = time.monotonic() + self.output.every
                self.output.tick()
            if pending:
                self._write(pending)
        except OSError as error:
            if not self._pause:
                self._warn(f"output {self.output.name}: {error}; trying again")
            longer = min(max(self._pause * 2, RETRY_SECONDS[0]), RETRY_SECONDS[1])
            self._pause = error.seconds if isinstance(error, Busy) else longer
            return self._closing
        if self._pause:
            self._warn(f"output {self.output.name}: works again")
            self._pause = 0.0
        return last

    def _wait(self) -> None:
        """Until there is something to do. Called with the lock held."""
        if self._pause:
            self._changed.wait_for(lambda: self._closing or self._reopening, self._pause)
            return
        timeout = None if self.output.every is None else max(0.0, self._tick - time.monotonic())
        if self._changed.wait_for(lambda: self._closing or self._reopening or self._queue or self._pending, timeout):
            self._changed.wait_for(lambda: self._closing or len(self._queue) >= BATCH, self.output.gather)

    def _write(self, pending: Deque[Record]) -> None:
        before = _events(pending)
        dropped = self.output.dropped
        try:
            self.output.write(pending)
        finally:
            taken = before - _events(pending)
            with self._changed:
                if pending is self._pending:
                    self.written += taken - (self.output.dropped - dropped)


def _events(records: Deque[Record]) -> int:
    return sum(not record.is_gap for record in records)
