"""Whether the DWARF of a kernel is all there. Of types that are missing from it, drgn only says that there are none.

Looked at is what tells of parts that are not there: units that refer to another file for their types, object files of
which the line tables know nothing, units that were compiled to have few types or none, and names of types that are
mentioned and nowhere defined. All of it without a look at the half a gigabyte of entries.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import IO, TYPE_CHECKING, Any, Collection, Dict, Iterator, List

from sockpid.errors import SourceError
from sockpid_gen.files.sections import content, mapped, opened

from .line_tables import FileNames
from .units import DW_UT_SKELETON, Part, is_bare, units

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

SECTIONS = (".debug_info", ".zdebug_info")
"""Where DWARF is; the second name is that of the GNU tools for what they compressed before ELF had a way to say so."""

_FEW_TYPES = re.compile(rb"GNU C[^\0]* -(g[01]|femit-struct-debug-[a-z-]+)[ \0]")
"""What gcc notes of its options where it was told to leave out types."""

_SPLIT = (
    "its DWARF is split: are all its .dwo files there, or the .dwp beside it? (They are not found for a vmlinux in a "
    "package.)"
)
_SHOWN = 5

_GNU_ZLIB = b"ZLIB" + bytes(8)
"""What such sections start with: the size follows the name."""


def is_split(file: IO[bytes]) -> bool:
    """Whether any unit refers to a .dwo file for its types (-gsplit-dwarf; CONFIG_DEBUG_INFO_SPLIT).

    Raises SourceError if that cannot be told.
    """
    with opened(file) as elf:
        # Before DWARF 5, split DWARF was GNU's, and only it had this section.
        gnu = elf.get_section_by_name(".debug_addr") is not None
        info: Any = None
        for unit in units(_part(file, elf, ".debug_info"), elf.little_endian):
            if unit.kind == DW_UT_SKELETON:
                return True
            if unit.version < 5 and gnu:
                info = info or elf.get_dwarf_info(follow_links=False)
                if "DW_AT_GNU_dwo_name" in info.get_CU_at(unit.offset).get_top_DIE().attributes:
                    return True
    return False


def doubts(file: IO[bytes], missing: Collection[str]) -> Dict[str, str]:
    """Of types ("struct sock") that were not found, those that may be in the kernel all the same, and why.

    Raises SourceError if that cannot be told.
    """
    if is_split(file):
        return dict.fromkeys(missing, _SPLIT)
    known = set(file_names(file).files)
    with opened(file) as elf:
        without = sorted(set(_c_files(elf)) - known)
        if without:
            return dict.fromkeys(missing, f"these object files have no debug information: {_few(without)}")
        strings, entries = _part(file, elf, ".debug_str").data, _part(file, elf, ".debug_info").data
        few = _FEW_TYPES.search(strings)
        if few is not None:
            option = few.group(1).decode("ascii")
            return dict.fromkeys(missing, f"units in it were compiled with -{option}, which leaves out types")
        info, abbreviations = _part(file, elf, ".debug_info"), _part(file, elf, ".debug_abbrev")
        bare = sum(is_bare(unit, info, abbreviations, elf.little_endian) for unit in units(info, elf.little_endian))
        if bare:
            return dict.fromkeys(missing, f"{bare} units of C in it have line numbers alone")
        return {
            name: "it is mentioned, but nowhere defined"
            for name in missing
            if any(data.find(name.partition(" ")[2].encode() + b"\0") >= 0 for data in (strings, entries))
        }


def file_names(file: IO[bytes]) -> FileNames:
    """The source files that the line tables name."""
    with opened(file) as elf:
        table = _part(file, elf, ".debug_line")
        strings = {
            form: _part(file, elf, section) for form, section in ((0x0E, ".debug_str"), (0x1F, ".debug_line_str"))
        }

        def text(form: int, offset: int) -> bytes:
            part = strings[form]
            found: bytes = part.data[part.start + offset : part.data.find(b"\0", part.start + offset)]
            return found

        return FileNames(table.data, table.start, table.end, text, elf.little_endian)


def _part(file: IO[bytes], elf: ELFFile, name: str) -> Part:
    """A section of DWARF, empty if there is none; in memory only when it is looked at, where that can be."""
    section = elf.get_section_by_name(name)
    if section is None:
        section = elf.get_section_by_name(name.replace(".debug", ".zdebug"))
        if section is None:
            return Part(b"", 0, 0)
        data = content(file, section)
        try:
            data = zlib.decompress(data[len(_GNU_ZLIB) :]) if data.startswith(b"ZLIB") else data
        except zlib.error as error:
            raise SourceError(f"section {section.name} is damaged: {error}") from None
        return Part(data, 0, len(data))
    if section["sh_size"] == 0 or section.compressed:
        data = content(file, section)
        return Part(data, 0, len(data))
    try:
        view = mapped(file, section)
    except (OSError, ValueError) as error:
        raise SourceError(f"section {name} cannot be read: {error}") from None
    mapping: Any = view.obj
    return Part(mapping, len(mapping) - len(view), len(mapping))


def _c_files(elf: ELFFile) -> Iterator[str]:
    """The C sources that the symbol table names: the linker keeps the name of each object's."""
    table: Any = elf.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if table is not None else ():
        if symbol["st_info"]["type"] == "STT_FILE" and symbol.name.endswith(".c"):
            yield os.path.basename(symbol.name)


def _few(names: List[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
