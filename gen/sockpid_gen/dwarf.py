"""Whether DWARF is all in one file. Of types in files that are missing, drgn only says that there are none."""

from __future__ import annotations

import struct
from typing import IO

from sockpid.errors import SourceError

from .sections import content, opened

SECTIONS = (".debug_info", ".zdebug_info")
"""Where DWARF is; the second name is that of the GNU tools for what they compressed before ELF had a way to say so."""

_DW_UT_SKELETON = 4
_LARGE = 64 << 20
"""Bytes. What is left of DWARF that is split is small."""


def is_split(file: IO[bytes]) -> bool:
    """Whether a vmlinux refers to .dwo files for its types (gcc -gsplit-dwarf; CONFIG_DEBUG_INFO_SPLIT)."""
    try:
        with opened(file) as elf:
            section = elf.get_section_by_name(".debug_info")
            if section is None:
                return False
            mark = "<" if elf.little_endian else ">"
            if section.compressed:
                if section.data_size > _LARGE:
                    return False
                start = content(file, section)[:16]
            else:
                file.seek(section["sh_offset"])
                start = file.read(16)
            # DWARF 5, section 7.5.1: unit_length, version, unit_type. A kernel is compiled all in one way.
            version, unit_type = struct.unpack_from(mark + "HB", start, 12 if start[:4] == b"\xff" * 4 else 4)
            if version >= 5:
                return bool(unit_type == _DW_UT_SKELETON)
            # Before, split DWARF was GNU's, and only it had this section.
            return elf.get_section_by_name(".debug_addr") is not None
    except SourceError:
        return False  # drgn says what is wrong with it
