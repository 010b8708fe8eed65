"""Sections of ELF files, whose headers are believed only as far as the file goes."""

from __future__ import annotations

import os
from typing import IO, Any

from sockpid.errors import SourceError

_COMPRESSED_MAX = 256 << 20
"""Bytes that a compressed section may have when it is decompressed."""


def content(file: IO[bytes], section: Any) -> bytes:
    """The bytes of a section (pyelftools' Section) of `file`, decompressed. Raises SourceError if it is damaged."""
    offset, size = section["sh_offset"], section["sh_size"]
    if offset + size > file.seek(0, os.SEEK_END):
        raise SourceError(f"damaged ELF file: section {section.name} reaches past its end")
    if section.compressed and section.data_size > _COMPRESSED_MAX:
        raise SourceError(f"section {section.name} has more than {_COMPRESSED_MAX >> 20} MiB in it")
    return bytes(section.data())
