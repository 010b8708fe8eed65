"""Sections of ELF files (man 5 elf), whose headers are believed only as far as the file goes.

pyelftools knows more than where sections are, and takes as much time and memory to import as all else before drgn.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from typing import IO, List, NamedTuple, Optional

from sockpid.arch import Arch, of_elf
from sockpid.errors import SourceError

ELF_MAGIC = b"\x7fELF"
SHT_NOTE, SHT_NOBITS = 7, 8
SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 2, 4, 0x800
_SHN_XINDEX = 0xFFFF
_ELFCOMPRESS_ZLIB, _ELFCOMPRESS_ZSTD = 1, 2

_NAMES_MAX = 1 << 20
"""Bytes of the names of all sections."""

_COMPRESSED_MAX = 256 << 20
"""Bytes that a compressed section may have when it is decompressed."""


class Section(NamedTuple):
    """One section. type, flags: SHT_*, SHF_*. offset, size: in the file, in bytes."""

    name: str
    type: int
    flags: int
    offset: int
    size: int


class Header(NamedTuple):
    """The identity of an ELF file. mark: how struct.pack() calls its byte order; is_64: its class."""

    mark: str
    is_64: bool
    machine: int

    def arch(self) -> Arch:
        """Raises UnsupportedArchError."""
        return of_elf(self.machine, 8 if self.is_64 else 4, "little" if self.mark == "<" else "big")


class Elf(NamedTuple):
    """What the headers of an ELF file say."""

    header: Header
    sections: List[Section]

    def named(self, name: str) -> Optional[Section]:
        """The first section of a name, or None."""
        return next((section for section in self.sections if section.name == name), None)


def header(start: bytes) -> Header:
    """The header of a file that starts so. Raises SourceError if it is damaged."""
    if len(start) < 20 or not start.startswith(ELF_MAGIC) or start[4] not in (1, 2) or start[5] not in (1, 2):
        raise SourceError("damaged ELF file: its header makes no sense")
    mark = "<" if start[5] == 1 else ">"
    (machine,) = struct.unpack_from(mark + "H", start, 18)
    return Header(mark, start[4] == 2, int(machine))


def read(file: IO[bytes]) -> Elf:
    """The headers of an ELF file. Raises SourceError if they are damaged."""
    size = file.seek(0, os.SEEK_END)
    start = _bytes(file, 0, 64)
    found = header(start)
    try:
        at = struct.unpack_from(found.mark + ("Q" if found.is_64 else "I"), start, 40 if found.is_64 else 32)[0]
        each, count, names = struct.unpack_from(found.mark + "HHH", start, 58 if found.is_64 else 46)
        form = struct.Struct(found.mark + ("IIQQQQIIQQ" if found.is_64 else "10I"))
        if at and each >= form.size and (not count or names == _SHN_XINDEX):
            first = form.unpack(_bytes(file, at, form.size) if at < size else b"")
            count, names = count or first[5], first[6] if names == _SHN_XINDEX else names
        if not at or not count:
            return Elf(found, [])
        if each < form.size or at + count * each > size:
            raise SourceError("damaged ELF file: its section headers reach past its end")
        table = _bytes(file, at, count * each)
        rows = [form.unpack_from(table, number * each) for number in range(count)]
        strings = _bytes(file, rows[names][4], min(rows[names][5], _NAMES_MAX)) if rows[names][4] < size else b""
    except (struct.error, IndexError) as error:
        raise SourceError(f"damaged ELF file: {error}") from None
    return Elf(found, [Section(_name(strings, row[0]), row[1], row[2], row[4], row[5]) for row in rows])


def content(file: IO[bytes], elf: Elf, section: Section, most: Optional[int] = None) -> bytes:
    """The bytes of a section of `file`, decompressed; no more than `most`. Raises SourceError if it is damaged."""
    if section.offset + section.size > file.seek(0, os.SEEK_END):
        raise SourceError(f"damaged ELF file: section {section.name} reaches past its end")
    if not section.flags & SHF_COMPRESSED:
        return _bytes(file, section.offset, section.size if most is None else min(most, section.size))
    data = _bytes(file, section.offset, section.size)
    form = struct.Struct(elf.header.mark + ("IIQQ" if elf.header.is_64 else "III"))
    if len(data) < form.size:
        raise SourceError(f"damaged ELF file: section {section.name} is shorter than its header")
    kind, size = form.unpack_from(data)[0], form.unpack_from(data)[-2]
    if most is None and size > _COMPRESSED_MAX:
        raise SourceError(f"section {section.name} has more than {_COMPRESSED_MAX >> 20} MiB in it")
    packed, wanted = data[form.size :], size if most is None else min(most, size)
    try:
        if kind == _ELFCOMPRESS_ZLIB:
            return zlib.decompressobj().decompress(packed, wanted) if wanted else b""
        if kind == _ELFCOMPRESS_ZSTD:
            from .decompress import ZSTD

            return ZSTD().decompress(packed, wanted) if wanted else b""
    except Exception as error:  # each library has its own
        raise SourceError(f"section {section.name} is damaged: {error}") from None
    raise SourceError(f"section {section.name} is compressed in an unknown way ({kind})")


def mapped(file: IO[bytes], section: Section) -> memoryview:
    """The bytes of a section that is there and not compressed; in memory only when they are looked at.

    Raises OSError for what is no file.
    """
    start = section.offset % mmap.ALLOCATIONGRANULARITY
    place = section.offset - start
    mapping = mmap.mmap(file.fileno(), start + section.size, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=place)
    return memoryview(mapping)[start:]


def _bytes(file: IO[bytes], offset: int, size: int) -> bytes:
    """What is left of them, if the file ends before."""
    file.seek(offset)
    return file.read(size)


def _name(strings: bytes, at: int) -> str:
    return strings[at : strings.find(b"\0", at)].decode("utf-8", "replace") if at < len(strings) else ""
