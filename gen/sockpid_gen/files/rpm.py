"""RPM packages: a lead, two headers, and a compressed cpio archive, in this order.

The headers (name, dependencies, digests) are of no interest here and stepped over. Formats: docs/manual/format_v4.md of
rpm; "newc" cpio: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

from __future__ import annotations

import struct
from typing import IO, BinaryIO, Iterator, cast

from sockpid.errors import SourceError

from .stream import Window, exactly

MAGIC = b"\xed\xab\xee\xdb"
_LEAD_SIZE = 96
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_ENTRY_SIZE = 110
_NAME_MAX = 4096
_S_IFMT, _S_IFREG = 0o170000, 0o100000


def skip_headers(file: BinaryIO) -> None:
    """Moves `file` from the start of a package to that of its compressed archive. Raises SourceError."""
    lead = file.read(_LEAD_SIZE)
    if len(lead) < _LEAD_SIZE or not lead.startswith(MAGIC):
        raise SourceError("no RPM package")
    file.seek(-_skip_header(file) % 8, 1)  # only the first one, of signatures, is padded
    _skip_header(file)


def _skip_header(file: BinaryIO) -> int:
    start = file.read(16)
    if len(start) < 16 or not start.startswith(_HEADER_MAGIC):
        raise SourceError("package is damaged: no header where one must be")
    entries, size = struct.unpack_from(">II", start, 8)
    file.seek(16 * entries + size, 1)
    return int(16 * entries + size)


def files(stream: BinaryIO) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file; the content is to be read before the next file is asked for.

    Raises SourceError if the archive is damaged.
    """
    while True:
        header = exactly(stream, _ENTRY_SIZE)
        if header[:6] not in (b"070701", b"070702"):
            raise SourceError(f"package is damaged or of an unknown kind: cpio header {header[:6]!r}")
        try:
            fields = [int(header[at : at + 8], 16) for at in range(6, _ENTRY_SIZE, 8)]
        except ValueError:
            raise SourceError("package is damaged: cpio header without numbers") from None
        mode, size, name_size = fields[1], fields[6], fields[11]
        if not 0 < name_size <= _NAME_MAX:
            raise SourceError(f"package is damaged: a file name of {name_size} bytes")
        name = exactly(stream, name_size + -(_ENTRY_SIZE + name_size) % 4)[: name_size - 1].decode("utf-8", "replace")
        if name == "TRAILER!!!":
            return
        content = Window(stream, size)
        if mode & _S_IFMT == _S_IFREG and size:
            yield name, cast("IO[bytes]", content)
        content.skip()
        exactly(stream, -size % 4)
