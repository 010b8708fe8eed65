"""Which source files a program was made of, out of the headers of its line tables (DWARF 5, section 6.2.4)."""

from __future__ import annotations

import os
import struct
from typing import Any, Callable, Dict, List, Set, Tuple, Union

from sockpid.errors import SourceError

_PATH = 1
"""DW_LNCT_path: of what an entry consists, its name."""

_DATA: Dict[int, int] = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
"""DW_FORM_data1, data2, data4, data8, data16: bytes of each."""

_STRING, _STRP, _UDATA, _LINE_STRP = 0x08, 0x0E, 0x0F, 0x1F

Bytes = Any
"""bytes, or a mapped file."""


class FileNames:
    """files: names without directory; directories: the last part of each. From all line tables of a file."""

    def __init__(self, table: Bytes, start: int, end: int, text: Callable[[int, int], bytes], little: bool) -> None:
        """table[start:end] is .debug_line; `text` gives the string of a form (DW_FORM_strp, line_strp) at an offset."""
        self._data = table
        self._mark = "<" if little else ">"
        self._names: Set[Union[bytes, Tuple[int, int]]] = set()
        self._directories: Set[Union[bytes, Tuple[int, int]]] = set()
        at = start
        try:
            while at < end:
                at = self._unit(at)
        except (struct.error, IndexError):
            raise SourceError("damaged DWARF: a line table reaches past its end") from None
        files, directories = (
            {(each if isinstance(each, bytes) else text(*each)).decode("utf-8", "replace") for each in found}
            for found in (self._names, self._directories)
        )
        self.files: List[str] = sorted({os.path.basename(name) for name in files})
        parts = {os.path.basename(name.rstrip("/")) for name in directories}
        self.directories = sorted(parts | {os.path.basename(os.path.dirname(name)) for name in files} | {""})

    def _unit(self, at: int) -> int:
        """Takes what a unit's header names; returns where the next unit starts."""
        (length,) = struct.unpack_from(self._mark + "I", self._data, at)
        at, wide = at + 4, length == 0xFFFFFFFF
        if wide:
            (length,) = struct.unpack_from(self._mark + "Q", self._data, at)
            at += 8
        end = at + length
        (version,) = struct.unpack_from(self._mark + "H", self._data, at)
        if not 2 <= version <= 5:
            raise SourceError(f"line tables of DWARF {version}, which is not known here")
        # address and segment selector size; header_length; six fields of a byte, five before version 4
        at += 2 + (2 if version >= 5 else 0) + (8 if wide else 4) + (5 if version >= 4 else 4)
        at += self._data[at]  # opcode_base, and lengths of one opcode fewer
        if version >= 5:
            at = self._entries(at, wide, self._directories)
            self._entries(at, wide, self._names)
        else:
            at = self._strings(at, self._directories, 0)
            self._strings(at, self._names, 3)
        return int(end)

    def _strings(self, at: int, found: Set[Any], numbers: int) -> int:
        """A list of strings, each with so many numbers behind it, up to an empty one."""
        data = self._data
        while True:
            nul = self._end(at)
            if nul == at:
                return at + 1
            found.add(data[at:nul])
            at = nul + 1
            for _ in range(numbers):
                while data[at] & 0x80:
                    at += 1
                at += 1

    def _entries(self, at: int, wide: bool, found: Set[Any]) -> int:
        """A list of entries that describes itself."""
        data = self._data
        formats: List[Tuple[int, int]] = []
        count, at = data[at], at + 1
        for _ in range(count):
            what, at = self._number(at)
            form, at = self._number(at)
            formats.append((what, form))
        entries, at = self._number(at)
        if entries > len(data) or (entries and not formats):
            raise IndexError
        reference = struct.Struct(self._mark + ("Q" if wide else "I"))
        for _ in range(entries):
            for what, form in formats:
                if form in (_LINE_STRP, _STRP):
                    if what == _PATH:
                        found.add((form, reference.unpack_from(data, at)[0]))
                    at += reference.size
                elif form == _UDATA:
                    while data[at] & 0x80:
                        at += 1
                    at += 1
                elif form == _STRING:
                    nul = self._end(at)
                    if what == _PATH:
                        found.add(data[at:nul])
                    at = nul + 1
                elif form in _DATA:
                    at += _DATA[form]
                else:
                    raise SourceError(f"line table with a form {form:#x}, which is not known here")
        return at

    def _end(self, at: int) -> int:
        """Where the string at `at` ends."""
        nul: int = self._data.find(b"\0", at)
        if nul < 0:
            raise IndexError
        return nul

    def _number(self, at: int) -> Tuple[int, int]:
        """An unsigned LEB128, and where it ends."""
        value = shift = 0
        while True:
            byte = self._data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
