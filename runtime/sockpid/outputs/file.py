"""Events as JSON lines in a file that is rotated by size and age."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Deque, List

from sockpid.errors import OutputError

from .arguments import Arguments
from .base import Output, Record


class File(Output):
    """Appends to PATH; PATH.1 is the one before, PATH.`keep` the oldest. Lines are whole, also when a disk is full."""

    tells_gaps = True
    wants_documents = False

    def __init__(self, path: str, size: int, age: float, keep: int, mode: int) -> None:
        """size: bytes, age: seconds, after which PATH becomes PATH.1 (0: never). Raises OutputError."""
        super().__init__(f"file:{path}")
        self._path, self._size, self._age, self._keep, self._mode = path, size, age, keep, mode
        self.every = 1.0 if age else None
        self._fd = -1
        try:
            self._open()
        except OSError as error:
            raise OutputError(f"output file {path}: {error.strerror}") from None

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> File:
        made = (
            os.path.abspath(arguments.place()),
            arguments.size("size", "64M"),
            arguments.seconds("age", "7d"),
            arguments.number("keep", 5, least=0),
            arguments.mode("mode", "0640"),
        )
        arguments.done()
        return cls(*made)

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode)
        try:
            found = os.fstat(fd)
            self._written = found.st_size
            self._since = found.st_mtime if found.st_size else time.time()
            if found.st_size and os.pread(fd, 1, found.st_size - 1) != b"\n":  # somebody was killed in a line
                self._written += os.write(fd, b"\n")
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def write(self, pending: Deque[Record]) -> None:
        if self._fd < 0:
            self._open()
        while pending:
            room = self._size - self._written
            piece: List[bytes] = []
            count = 0
            for record in pending:
                if self._size and piece and count + len(record.line) > room:
                    break
                piece.append(record.line)
                count += len(record.line)
            if self._size and self._written and count > room:
                self._rotate()
                continue
            self._append(b"".join(piece))
            for _ in piece:
                pending.popleft()

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._written)
            raise
        self._written += len(data)

    def tick(self) -> None:
        if self._fd >= 0 and self._written and time.time() - self._since >= self._age:
            self._rotate()

    def _rotate(self) -> None:
        """Each step is one rename: whenever we are killed, every line is in a file, in order of their numbers."""
        self.close()
        if self._keep:
            for number in range(self._keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            os.replace(self._path, f"{self._path}.1")
        else:
            os.unlink(self._path)
        self._open()

    def reopen(self) -> None:
        """Whoever renamed the file gets what was written so far; what follows goes to a new one."""
        self.close()
        self._open()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
