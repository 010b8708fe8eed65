"""Debian packages (man 5 deb): an ar archive with a compressed tar archive in it."""

from __future__ import annotations

import io
from typing import BinaryIO, NamedTuple

from sockpid.errors import SourceError

AR_MAGIC = b"!<arch>\n"


class Member(NamedTuple):
    """A member of an ar archive: name, and where its bytes are in the file."""

    name: str
    offset: int
    size: int


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


def data(file: BinaryIO) -> Member:
    """The archive of a package's files. Raises SourceError if there is none, or the package is damaged."""
    for member in members(file):
        if member.name.startswith("data.tar"):
            return member
    raise SourceError("package is damaged: it has no data.tar")
