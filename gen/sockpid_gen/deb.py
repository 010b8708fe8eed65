"""The kernel file in a Debian package, without unpacking the package: read as a stream, which ends at the kernel."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from typing import IO, Any, BinaryIO, Callable, NamedTuple

from sockpid.errors import SourceError

from .decompress import DAMAGE, reader

AR_MAGIC = b"!<arch>\n"

_KERNEL = re.compile(
    r"\./(boot/vmlinu[xz]-[^/]+"
    r"|(usr/)?lib/modules/[^/]+/vmlinu[xz]"
    r"|usr/lib/debug/(boot/vmlinux-[^/]+|(usr/)?lib/modules/[^/]+/vmlinux))\Z"
)

Tick = Callable[[int], None]


class Member(NamedTuple):
    """A member of an ar archive: name, and where its bytes are in the file."""

    name: str
    offset: int
    size: int


class _Window(io.RawIOBase):
    """Bytes [offset, offset + size) of a file, as a stream. Calls `tick` with the number of bytes of every read."""

    def __init__(self, file: BinaryIO, offset: int, size: int, tick: Tick) -> None:
        super().__init__()
        self._file, self._left, self._tick = file, size, tick
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        self._tick(len(data))
        return len(data)


def members(file: BinaryIO) -> list[Member]:
    """The members of an ar archive (man 5 ar). Raises SourceError if it is none or truncated."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise SourceError("no Debian package")
    found: list[Member] = []
    position = len(AR_MAGIC)
    while position < size:
        file.seek(position)
        header = file.read(60)
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise SourceError("package is damaged: bad header of an archive member")
        member = Member(header[:16].decode("ascii", "replace").strip().rstrip("/"), position + 60, int(header[48:58]))
        if member.offset + member.size > size:
            raise SourceError(f"package is truncated: {member.name} reaches past its end")
        found.append(member)
        position = member.offset + member.size + member.size % 2
    return found


def copy_kernel(file: BinaryIO, to: IO[bytes], tick: Tick = lambda _: None) -> str:
    """Copies a package's kernel (vmlinuz, or vmlinux of a -dbg package) into `to`; returns its path in the package.

    `tick` is called with the number of bytes of the package that were read since the last call. Raises SourceError if
    the package is damaged or has no kernel.
    """
    for member in members(file):
        if member.name.startswith("data.tar"):
            break
    else:
        raise SourceError("package is damaged: it has no data.tar")
    window = io.BufferedReader(_Window(file, member.offset, member.size, tick), 1 << 20)
    try:
        with tarfile.open(fileobj=reader(member.name, window), mode="r|") as tar:
            for info in tar:
                path = info.name if info.name.startswith("./") else "./" + info.name
                content = tar.extractfile(info) if info.isfile() and _KERNEL.match(path) else None
                if content is not None:
                    shutil.copyfileobj(content, to, 1 << 20)
                    to.seek(0)
                    return path[2:]
    except (tarfile.TarError, *DAMAGE) as error:
        raise SourceError(f"package is damaged: {error}") from None
    raise SourceError(
        "package has no kernel in it (Debian's linux-image-* packages may only depend on the one that has: "
        "linux-image-RELEASE-unsigned or linux-binary-RELEASE)"
    )
