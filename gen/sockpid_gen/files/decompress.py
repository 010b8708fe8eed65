"""The compressions in use for kernels and packages, told apart by their first bytes; never more output than allowed."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import sys
import zlib
from typing import IO, Any, BinaryIO, Callable, Dict, Optional, Protocol, Union, cast

from sockpid.errors import SourceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KERNEL_MAX = 512 << 20
"""Bytes that a kernel may have when it is unpacked. (Real ones have up to 100 MiB.)"""

_MEMORY_MAX = 512 << 20
"""Bytes that a decompressor may ask for. (xz -9 needs 65 MiB; kernels use dictionaries of up to 128 MiB.)"""

_CHUNK = 1 << 18
_PIECE = 8 << 20
"""Bytes that are decompressed at once: a block of lz4."""
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20
"""Size in bytes of every block of a legacy lz4 frame, decompressed; the last may have less."""

DAMAGE = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError, RuntimeError)
"""What the libraries raise when compressed data are damaged or truncated."""


class _Decompressor(Protocol):
    """What lzma, bz2 and zstd have in common; max_length < 0 is no limit."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Union[bytes, memoryview], max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib in the shape of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: Union[bytes, memoryview], max_length: int = -1) -> bytes:
        tail = self._zlib.unconsumed_tail
        return self._zlib.decompress(tail + data if tail else data, max(0, max_length))


class _Lz4Legacy:
    """A legacy lz4 frame: blocks, each after its size. The kernel's build appends the uncompressed size."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._at = len(_LZ4_LEGACY)
        self._ready = memoryview(b"")
        self._ended = False
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._ended and not self._ready

    @property
    def needs_input(self) -> bool:
        return not self._ended and not self._ready and self._block_end() > len(self._packed)

    def decompress(self, data: Union[bytes, memoryview], max_length: int = -1) -> bytes:
        import lz4.block

        self._packed += data
        if not self._ready and not self._ended and self._block_end() <= len(self._packed):
            end = self._block_end()
            packed = bytes(self._packed[self._at + 4 : end])
            self._ready = memoryview(cast(bytes, lz4.block.decompress(packed, uncompressed_size=_LZ4_BLOCK)))
            del self._packed[:end]
            self._at = 0
            # A full block may be the last, too: then nothing follows, or the size, which is none of a block.
            self._ended = len(self._ready) < _LZ4_BLOCK or not self._packed or self._block_end() == 0
            if self._ended:
                self.unused_data = bytes(self._packed)
        size = len(self._ready) if max_length < 0 else max_length
        output, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return output

    def _block_end(self) -> int:
        """Where the next block ends; 0 if what comes next is none."""
        if self._at + 4 > len(self._packed):
            return self._at + 4
        (size,) = struct.unpack_from("<I", self._packed, self._at)
        if size > _LZ4_BLOCK + (_LZ4_BLOCK >> 8) + 16:  # no block is packed into more
            return 0
        return self._at + 4 + int(size)


MAGICS: Dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b\x08": _Gzip,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX),
    b"\x28\xb5\x2f\xfd": zstd.ZstdDecompressor,
    _LZ4_LEGACY: _Lz4Legacy,
    b"\x5d\x00\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_MAX),
    b"BZh": bz2.BZ2Decompressor,
}


def kind_of(start: bytes) -> Optional[Callable[[], _Decompressor]]:
    """What decompresses data that start so; None if they are not compressed."""
    for magic, make in MAGICS.items():
        if start.startswith(magic):
            return make
    return None


def decompress(data: Union[bytes, memoryview], limit: int = KERNEL_MAX) -> bytes:
    """Decompresses what starts with one of MAGICS; what follows its end is ignored.

    Raises SourceError for an unknown compression, if the data are damaged or truncated, or have more than `limit`
    bytes when decompressed.
    """
    make = kind_of(bytes(data[:8]))
    if make is None:
        raise SourceError(f"unknown compression (it starts with bytes {bytes(data[:6]).hex()})")
    view, at, output = memoryview(data), 0, io.BytesIO()
    try:
        decompressor = make()
        # In pieces: the libraries keep what they give back in blocks, so that a whole kernel would be in memory twice.
        while not decompressor.eof and output.tell() <= limit:
            piece: Union[bytes, memoryview] = b""
            if decompressor.needs_input:
                if at >= len(view):
                    break
                piece, at = view[at : at + _CHUNK], at + _CHUNK
            part = decompressor.decompress(piece, min(_PIECE, limit + 1 - output.tell()))
            if not part and not piece:
                break
            output.write(part)
    except DAMAGE as error:
        raise SourceError(f"compressed data are damaged: {error}") from None
    if output.tell() > limit:
        raise SourceError(f"compressed data have more than {limit >> 20} MiB in them")
    if not decompressor.eof:
        raise SourceError("compressed data are damaged: they end too early")
    return output.getvalue()


class Reader(io.RawIOBase):
    """The decompressed bytes of `file` from where it stands; of uncompressed data, the bytes as they are.

    Streams that follow each other are one, as for the tools; zero bytes between and after them are padding. Reading
    raises SourceError if the data are damaged or truncated.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._pending = file.read(_CHUNK)
        self._make = kind_of(self._pending)
        self._decompressor = self._make() if self._make else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _some(self, size: int) -> bytes:
        if self._make is None:
            data = self._pending[:size] or self._file.read(size)
            self._pending = self._pending[size:]
            return data
        try:
            while True:
                if self._decompressor is None and not self._next_stream():
                    return b""
                assert self._decompressor is not None
                if not self._pending and self._decompressor.needs_input:
                    self._pending = self._file.read(_CHUNK)
                    if not self._pending:
                        raise SourceError("compressed data are damaged: they end too early")
                data = self._decompressor.decompress(self._pending, size)
                self._pending = b""
                if self._decompressor.eof:
                    self._pending = self._decompressor.unused_data
                    self._decompressor = None
                if data:
                    return data
        except DAMAGE as error:
            raise SourceError(f"compressed data are damaged: {error}") from None

    def _next_stream(self) -> bool:
        """Whether another compressed stream follows."""
        while True:
            self._pending = self._pending.lstrip(b"\0")
            if len(self._pending) >= 8:
                break
            more = self._file.read(_CHUNK)
            if not more:
                break
            self._pending += more
        make = kind_of(self._pending)
        if make is None:
            self._pending = b""
            return False
        self._decompressor = make()
        return True


def reader(file: IO[bytes]) -> BinaryIO:
    """Reader(file), buffered."""
    return cast(BinaryIO, io.BufferedReader(Reader(file), _CHUNK))
