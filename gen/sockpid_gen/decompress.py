"""The compressions in use for kernels and packages, told apart by their first bytes."""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import zlib
from typing import BinaryIO, Callable, Dict, Protocol, cast

from sockpid.errors import SourceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAMAGE = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)
"""What the libraries raise when compressed data are damaged or truncated."""

_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20
"""Size in bytes of every block of a legacy lz4 frame, decompressed; the last may have less."""


class _Decompressor(Protocol):
    """What zlib, lzma, bz2 and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, __data: bytes) -> bytes: ...


def _whole(decompressor: _Decompressor, data: bytes) -> bytes:
    content = decompressor.decompress(data)
    if not decompressor.eof:
        raise EOFError("they end too early")
    return content


def _lz4(data: bytes) -> bytes:
    import lz4.block

    blocks = []
    position = len(_LZ4_LEGACY)
    while position + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        if size > len(data) - position:  # the kernel's build appends the uncompressed size
            break
        block = lz4.block.decompress(data[position : position + size], uncompressed_size=_LZ4_BLOCK)
        blocks.append(cast(bytes, block))
        position += size
        if len(block) < _LZ4_BLOCK:
            break
    return b"".join(blocks)


MAGICS: Dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b\x08": lambda data: _whole(zlib.decompressobj(wbits=31), data),
    b"\xfd7zXZ\x00": lambda data: _whole(lzma.LZMADecompressor(lzma.FORMAT_XZ), data),
    b"\x28\xb5\x2f\xfd": lambda data: _whole(zstd.ZstdDecompressor(), data),
    _LZ4_LEGACY: _lz4,
    b"\x5d\x00\x00": lambda data: _whole(lzma.LZMADecompressor(lzma.FORMAT_ALONE), data),
    b"BZh": lambda data: _whole(bz2.BZ2Decompressor(), data),
}


def decompress(data: bytes) -> bytes:
    """Decompresses what starts with one of MAGICS; what follows its end is ignored.

    Raises SourceError for an unknown compression, or if the data are damaged or truncated.
    """
    for magic, function in MAGICS.items():
        if data.startswith(magic):
            try:
                return function(data)
            except (*DAMAGE, RuntimeError, ValueError) as error:
                raise SourceError(f"compressed data are damaged: {error}") from None
    raise SourceError(f"unknown compression (it starts with bytes {data[:6].hex()})")


def reader(name: str, file: BinaryIO) -> BinaryIO:
    """A stream of the decompressed bytes of `file`; the suffix of `name` tells the compression (none: "data.tar").

    Raises SourceError for any other name. Reading from the stream raises what the library raises.
    """
    suffix = name.rpartition(".")[2]
    if suffix == "tar":
        return file
    if suffix == "gz":
        import gzip

        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if suffix in ("xz", "lzma"):
        return cast(BinaryIO, lzma.LZMAFile(file))
    if suffix == "zst":
        return cast(BinaryIO, zstd.ZstdFile(file))
    if suffix == "bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    raise SourceError(f"unknown compression of {name}")
