"""ELF files, whose headers are believed only as far as the file goes."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import IO, TYPE_CHECKING, Any, Generator

from sockpid.arch import Arch, of_elf
from sockpid.errors import SourceError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

ELF_MAGIC = b"\x7fELF"

IDENTITY = 20
"""Bytes from the start of an ELF header to the end of e_machine."""

_ELFCOMPRESS_ZSTD = 2

_COMPRESSED_MAX = 256 << 20
"""Bytes that a compressed section may have when it is decompressed."""


def arch_of(start: bytes) -> Arch:
    """Of an ELF file that starts so. (pyelftools knows machines by name, and not every one.) Raises SourceError and
    UnsupportedArchError."""
    if len(start) < IDENTITY or not start.startswith(ELF_MAGIC) or start[4] not in (1, 2) or start[5] not in (1, 2):
        raise SourceError("damaged ELF file: its header makes no sense")
    order = "little" if start[5] == 1 else "big"
    (machine,) = struct.unpack_from("<H" if order == "little" else ">H", start, 18)
    return of_elf(machine, start[4] * 4, order)


@contextlib.contextmanager
def opened(file: IO[bytes]) -> Generator[ELFFile, None, None]:
    """`file` as pyelftools has it. What it raises for a damaged one becomes SourceError."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        yield ELFFile(file)
    except (ELFError, struct.error, OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise SourceError(f"damaged ELF file: {error}") from None


def content(file: IO[bytes], section: Any) -> bytes:
    """The bytes of a section (pyelftools' Section) of `file`, decompressed. Raises SourceError if it is damaged."""
    offset, size = section["sh_offset"], section["sh_size"]
    if offset + size > file.seek(0, os.SEEK_END):
        raise SourceError(f"damaged ELF file: section {section.name} reaches past its end")
    if section.compressed and section.data_size > _COMPRESSED_MAX:
        raise SourceError(f"section {section.name} has more than {_COMPRESSED_MAX >> 20} MiB in it")
    if section.compressed:
        header = section.structs.Elf_Chdr.sizeof()
        file.seek(offset)
        (kind,) = struct.unpack("<I" if section.elffile.little_endian else ">I", file.read(4))
        if kind == _ELFCOMPRESS_ZSTD:  # which pyelftools does not know
            from .decompress import decompress

            file.seek(offset + header)
            return decompress(file.read(size - header), _COMPRESSED_MAX)
    return bytes(section.data())


def mapped(file: IO[bytes], section: Any) -> memoryview:
    """The bytes of a section that is not compressed and not empty; in memory only when they are looked at.

    Raises OSError for what is no file.
    """
    start = section["sh_offset"] % mmap.ALLOCATIONGRANULARITY
    place = section["sh_offset"] - start
    mapping = mmap.mmap(file.fileno(), start + section["sh_size"], mmap.MAP_PRIVATE, mmap.PROT_READ, offset=place)
    return memoryview(mapping)[start:]
