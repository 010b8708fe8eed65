"""A bounded queue of requests on disk, which survives us."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import List, NamedTuple, Optional

from sockpid.errors import OutputError


class Spooled(NamedTuple):
    """One request. number: its place in the queue; events: how many it holds; size: bytes."""

    number: int
    events: int
    size: int


class Spool:
    """Files NUMBER-EVENTS.json, the oldest first, in a directory that is ours alone as long as this is open.

    Each file is whole: it is written under another name, synced, and renamed.
    """

    def __init__(self, directory: str, limit: int) -> None:
        """limit: bytes that all files together may have. Raises OutputError."""
        self._directory, self._limit = directory, limit
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"queue directory {directory}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._files = self._scan()
        except OSError as error:
            os.close(self._lock)
            in_use = isinstance(error, BlockingIOError)
            raise OutputError(f"queue directory {directory}: {'in use' if in_use else error.strerror}") from None
        self._bytes = sum(each.size for each in self._files)
        self._next = self._files[-1].number + 1 if self._files else 1

    def _scan(self) -> List[Spooled]:
        found: List[Spooled] = []
        for name in os.listdir(self._directory):
            number, _, events = name.partition("-")
            path = os.path.join(self._directory, name)
            if name.endswith(".tmp"):
                os.unlink(path)
            elif number.isdecimal() and events.endswith(".json") and events[:-5].isdecimal():
                found.append(Spooled(int(number), int(events[:-5]), os.stat(path).st_size))
        return sorted(found)

    def __len__(self) -> int:
        return len(self._files)

    def _path(self, each: Spooled) -> str:
        return os.path.join(self._directory, f"{each.number:012d}-{each.events}.json")

    def push(self, body: bytes, events: int) -> int:
        """Adds a request. Returns how many events of the oldest were given up for it. Raises OSError if the disk does
        not take it."""
        made = Spooled(self._next, events, len(body))
        lost = 0
        if len(body) > self._limit:
            return events
        while self._files and self._bytes + len(body) > self._limit:
            lost += self._files[0].events
            self.remove(self._files[0])
        path = self._path(made)
        try:
            fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(fd)
            os.replace(path + ".tmp", path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path + ".tmp")
            raise
        self._next += 1
        self._files.append(made)
        self._bytes += made.size
        return lost

    def oldest(self) -> Optional[Spooled]:
        return self._files[0] if self._files else None

    def read(self, each: Spooled) -> bytes:
        with open(self._path(each), "rb") as file:
            return file.read()

    def remove(self, each: Spooled) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(each))
        self._files.remove(each)
        self._bytes -= each.size

    def close(self) -> None:
        os.close(self._lock)
