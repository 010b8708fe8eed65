"""A file at the end of a tar archive in xz without what comes before it: dpkg compresses blocks, each for itself.

Debug packages of kernels have gigabytes in them, and in some of them vmlinux is last.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from typing import IO, Any, BinaryIO, Iterator, Optional, Pattern, Tuple, cast

from .decompress import DAMAGE
from .stream import Tick

_BLOCK_MAX = 64 << 20
"""Bytes of an unpacked block, and so of the memory that it takes. (dpkg's have 24 MiB.)"""

_TAR_BLOCK = 512
_USTAR = b"ustar"
_USTAR_AT = 257
"""Where a header in a tar archive has it (man 5 tar)."""


class Part(io.RawIOBase):
    """`size` bytes of `file`, from `offset` on. `tick` is told of every read."""

    def __init__(self, file: BinaryIO, offset: int, size: int, tick: Tick) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._tick = file, offset, size, tick
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        self._tick(len(data))
        return len(data)


def from_last(archive: Part, wanted: Pattern[str], limit: int) -> Optional[IO[bytes]]:
    """The archive from the header of the last regular file with a wanted name on, to the end of that file or later.

    In a temporary file of at most `limit` bytes. None if no file has such a name or that many bytes follow it, or if
    the archive is damaged or not in blocks: then it has to be read from its start.
    """
    import xz

    unpacked, held = tempfile.TemporaryFile(prefix="sockpid-gen."), 0
    try:
        for start, block in _last_first(archive):
            headers = list(_headers(block))
            places = [at for at, header in headers if header.isreg() and wanted.match(header.name)]
            if headers and not places:
                unpacked.truncate(0)  # files that are none of these, with their names
                held = 0
            held += len(block)
            if held > limit:
                break
            unpacked.seek(start)
            unpacked.write(block)
            if places:
                unpacked.seek(start + places[-1])
                return cast("IO[bytes]", unpacked)
    except (xz.XZError, MemoryError, *DAMAGE):
        pass  # who reads it from its start says what is wrong
    except BaseException:
        unpacked.close()
        raise
    unpacked.close()
    return None


def _last_first(archive: Part) -> Iterator[Tuple[int, bytes]]:
    """Every block, and where it starts when all are unpacked. Nothing if there is only one, or if one is too large."""
    import xz

    with xz.XZFile(cast(BinaryIO, archive)) as file:
        starts = file.block_boundaries
        places = list(zip(starts, [*starts[1:], len(file)]))
        if len(places) > 1 and all(start % _TAR_BLOCK == 0 and end - start <= _BLOCK_MAX for start, end in places):
            for start, end in reversed(places):
                file.seek(start)
                yield start, file.read(end - start)


def _headers(block: bytes) -> Iterator[Tuple[int, tarfile.TarInfo]]:
    """Headers of files in part of a tar archive, and where they are in it."""
    at = block.find(_USTAR)
    while at >= 0:
        start = at - _USTAR_AT
        if start >= 0 and start % _TAR_BLOCK == 0:
            with contextlib.suppress(tarfile.TarError):  # something in a file that looks like it
                yield start, tarfile.TarInfo.frombuf(block[start : start + _TAR_BLOCK], "utf-8", "surrogateescape")
        at = block.find(_USTAR, at + 1)
