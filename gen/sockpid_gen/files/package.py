"""What is in packages and archives - deb, rpm, tar, zip - as a stream of files; none is unpacked for nothing."""

from __future__ import annotations

import io
import itertools
import os
import re
import tarfile
import zipfile
from typing import IO, Any, BinaryIO, Iterator, Optional, Tuple, Union, cast

from sockpid.errors import SourceError

from . import deb, rpm
from .decompress import DAMAGE, Reader, kind_of, reader
from .stream import Bounded, Tick, Window

TOTAL_MAX = 16 << 30
"""Bytes that all files of a package may have together. (Debug packages of kernels have up to 6 GiB.)"""

KERNEL = re.compile(
    r"(\./|/)?(boot/(vmlinu[xz]|[uz]?Image|image|bzImage)-[^/]+(?<!\.sig)(?<!\.hmac)"
    r"|(usr/)?lib/modules/[^/]+/(vmlinu[xz]|[uz]?Image|image|bzImage)(\.(gz|xz|zst|bz2|lz4|lzma))?"
    r"|usr/lib/debug/(boot/vmlinux-[^/]+|(usr/)?lib/modules/[^/]+/vmlinux(\.debug)?))\Z"
)
"""Where distributions have the kernel in their packages. (vmlinux, from a debug package, has DWARF.)"""

SOURCE = re.compile(r"(vmlinu[xz]|[uz]?Image|bzImage)([-._].*)?|.*\.(btf|d?deb|rpm)|.*\.btf\.tar\.[a-z0-9]+", re.DOTALL)
"""Names, without directory, of files that may be kernels, in directories and in archives that are no packages."""

FILE_MAX = 8 << 30
"""Bytes that a kernel in a package may have. (vmlinux with DWARF has up to 1 GiB.)"""

_FRONT = 8 << 20
"""Bytes of a package, packed as they are, in which a kernel is looked for first; more than its first block has."""

_TAR_BLOCK = 512
_HEADER_MAX = 1 << 20
_READ_AT_ONCE = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

Files = Iterator[Tuple[str, IO[bytes]]]


class _TarInfo(tarfile.TarInfo):
    """Refuses headers that tarfile would read into memory, whatever their size."""

    @classmethod
    def frombuf(cls, buf: Union[bytes, bytearray], encoding: str, errors: str) -> _TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _READ_AT_ONCE and info.size > _HEADER_MAX:
            raise SourceError(f"package is damaged: a file name of {info.size} bytes")
        return info


def kind(file: BinaryIO) -> Optional[str]:
    """Which of "deb", "rpm", "tar" and "zip" `file` is, compressed or not, or None. Afterwards it is at its start."""
    file.seek(0)
    start = file.read(8)
    found = None
    if start == deb.AR_MAGIC:
        found = "deb"
    elif start.startswith(rpm.MAGIC):
        found = "rpm"
    elif start.startswith(b"PK\x03\x04"):
        found = "zip"
    else:
        file.seek(0)
        try:
            block = reader(file).read(_TAR_BLOCK) if kind_of(start) else file.read(_TAR_BLOCK)
        except SourceError:
            block = b""
        if len(block) == _TAR_BLOCK and block[257:262] == b"ustar":
            found = "tar"
    file.seek(0)
    return found


def files(file: BinaryIO, what: str, tick: Tick = lambda _: None) -> Files:
    """Path and content of each regular file in a package of the kind `what`, in its order.

    The content is to be read before the next file is asked for. `tick` is told how much of the package was read.
    Raises SourceError if the package is damaged, or has more in it than any kernel's has.
    """
    if what == "zip":
        yield from _zip(file, tick)
        return
    size = None
    if what == "deb":
        _, offset, size = deb.data(file)
        file.seek(offset)
    elif what == "rpm":
        rpm.skip_headers(file)
    raw = io.BufferedReader(Window(file, size, tick), 1 << 20)
    stream = io.BufferedReader(Bounded(Reader(raw), TOTAL_MAX), 1 << 17)
    yield from rpm.files(cast(BinaryIO, stream)) if what == "rpm" else _tar(cast(BinaryIO, stream))


def sources(file: BinaryIO, what: str, tick: Tick, nested: bool) -> Files:
    """Those of files() in an archive that is no package that are kernels or, if `nested`, may have kernels in them."""
    for name, content in files(file, what, tick):
        if KERNEL.match(name) or (nested and SOURCE.fullmatch(os.path.basename(name))):
            yield name, content


def kernel(file: BinaryIO, what: str, tick: Tick = lambda _: None) -> Files:
    """The first of files() that is a kernel, if any; of a Debian package with none near its start the last (blocks)."""
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size
        tick(size)

    for name, content in files(file, what, count):
        if KERNEL.match(name):
            yield name, content
            return
        if what == "deb" and read > _FRONT:
            break
    else:
        return
    from . import blocks

    _, offset, size = deb.data(file)
    rest = blocks.from_last(blocks.Part(file, offset, size, tick), KERNEL, FILE_MAX)
    if rest is None:
        yield from itertools.islice((each for each in files(file, what) if KERNEL.match(each[0])), 1)
        return
    with rest:
        inside = _tar(cast(BinaryIO, rest))  # to be kept until its file was read
        yield next(inside)


class _Content(io.RawIOBase):
    """A file in an archive, whose library has its own ways to say that it is damaged."""

    def __init__(self, content: IO[bytes]) -> None:
        super().__init__()
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._content.read(len(buffer))
        except (tarfile.TarError, zipfile.BadZipFile, *DAMAGE) as error:
            raise SourceError(f"package is damaged: {error}") from None
        buffer[: len(data)] = data
        return len(data)


def _tar(stream: BinaryIO) -> Files:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 17, tarinfo=_TarInfo) as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
                content = tar.extractfile(info) if info.isreg() else None
                if content is not None:
                    yield info.name, cast("IO[bytes]", _Content(content))
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise SourceError(f"package is damaged: {error}") from None


def _zip(file: BinaryIO, tick: Tick) -> Files:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as content:
                        yield info.filename, cast("IO[bytes]", _Content(content))
                tick(info.compress_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise SourceError(f"archive is damaged or of an unknown kind: {error}") from None
