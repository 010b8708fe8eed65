"""Parts of files as streams, read once from front to back, and never more of them than is allowed."""

from __future__ import annotations

import io
from typing import IO, Any, Callable, Optional, Union

from sockpid.errors import SourceError

Tick = Callable[[int], None]
"""Is told how many bytes were read since the last call."""

_STEP = 1 << 18


class Window(io.RawIOBase):
    """The next `size` bytes of `file` (None: all). `tick` is told of every read."""

    def __init__(self, file: IO[bytes], size: Optional[int] = None, tick: Tick = lambda _: None) -> None:
        super().__init__()
        self._file, self._left, self._tick = file, size, tick

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer) if self._left is None else min(len(buffer), self._left))
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        self._tick(len(data))
        return len(data)

    def skip(self) -> None:
        """Reads what is left. Raises SourceError if the file ends before."""
        while self._left:
            if not self.read(_STEP):
                raise SourceError("package is damaged: it ends within a file")


class Bounded(io.RawIOBase):
    """`file`, but no more than `limit` bytes of it: what expands to more was made to do harm. Raises SourceError."""

    def __init__(self, file: Union[IO[bytes], io.RawIOBase], limit: int) -> None:
        super().__init__()
        self._file, self._limit, self._left = file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer)) or b""
        self._left -= len(data)
        if self._left < 0:
            raise SourceError(f"package has more than {self._limit >> 20} MiB in it")
        buffer[: len(data)] = data
        return len(data)


def exactly(stream: IO[bytes], size: int) -> bytes:
    """The next `size` bytes, a small number. Raises SourceError if there are less."""
    data = stream.read(size)
    if len(data) < size:
        raise SourceError("package is damaged: it ends too early")
    return data


def copy(stream: IO[bytes], to: IO[bytes], limit: int) -> None:
    """Copies `stream`, then goes to the start of `to`. Raises SourceError if there are more than `limit` bytes."""
    while True:
        data = stream.read(_STEP)
        if not data:
            break
        limit -= len(data)
        if limit < 0:
            raise SourceError("a file in the package is too large for a kernel")
        to.write(data)
    to.seek(0)


def sha256_of(file: IO[bytes]) -> str:
    """Of what is left of `file`, in hex."""
    import hashlib  # loads all of OpenSSL

    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()
