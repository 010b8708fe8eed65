"""The units of .debug_info by their headers and first entries, not by what is in them (DWARF 5, section 7.5)."""

from __future__ import annotations

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from sockpid.errors import SourceError

DW_UT_SKELETON = 4
_DW_TAG_COMPILE_UNIT = 0x11
_DW_AT_LANGUAGE = 0x13
_DW_FORM_IMPLICIT_CONST = 0x21
_C_LANGUAGES = frozenset((0x01, 0x02, 0x0C, 0x1D, 0x2C))
"""C89, C, C99, C11, C17 (section 7.12)."""

_FIXED: Dict[int, int] = {
    0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16, 0x0C: 1, 0x19: 0, 0x21: 0, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4,
    0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
"""Bytes of a value by its form: data1 to data16, flags, implicit constants, strx1 to addrx4."""

_LEB128 = frozenset((0x0D, 0x0F, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02))
_OFFSETS = frozenset((0x0E, 0x17, 0x1F))
"""strp, sec_offset, line_strp."""
_ADDRESS, _STRING = 0x01, 0x08


class Part(NamedTuple):
    """A section: data[start:end], where data are bytes or a mapped file."""

    data: Any
    start: int
    end: int


class Unit(NamedTuple):
    """Header of a unit. offset: of the unit in .debug_info. kind: its DW_UT number, 0 before DWARF 5.

    wide: its offsets have 64 bits. address_size: bytes of an address. entry: where its first entry is in the data.
    """

    offset: int
    version: int
    kind: int
    wide: bool
    abbreviations: int
    address_size: int
    entry: int


def units(info: Part, little: bool) -> Iterator[Unit]:
    """The headers of all units, by the length that each says it has."""
    mark = "<" if little else ">"
    data, at = info.data, info.start
    while at < info.end:
        try:
            (length,) = struct.unpack_from(mark + "I", data, at)
            here, wide = at + 4, length == 0xFFFFFFFF
            if wide:
                (length,) = struct.unpack_from(mark + "Q", data, here)
                here += 8
            offset = "Q" if wide else "I"
            (version,) = struct.unpack_from(mark + "H", data, here)
            if version >= 5:
                kind, address_size, abbreviations = struct.unpack_from(mark + "BB" + offset, data, here + 2)
            else:
                kind = 0
                abbreviations, address_size = struct.unpack_from(mark + offset + "B", data, here + 2)
        except struct.error:
            raise SourceError("damaged DWARF: a unit reaches past the end of .debug_info") from None
        entry = here + (4 if version >= 5 else 3) + (8 if wide else 4)
        yield Unit(at - info.start, version, kind, wide, abbreviations, address_size, entry)
        at = here + length


def is_bare(unit: Unit, info: Part, abbreviations: Part, little: bool) -> bool:
    """Whether it is a unit of C of which nothing but line numbers was kept. Raises SourceError if it is damaged."""
    try:
        code, at = _number(info.data, unit.entry)
        found = _abbreviation(abbreviations, unit.abbreviations, code)
        if found is None or found[0] != _DW_TAG_COMPILE_UNIT or found[1]:
            return False
        for name, form, implicit in found[2]:
            if name == _DW_AT_LANGUAGE:
                size = _FIXED.get(form)
                order: Any = "little" if little else "big"
                if form == _DW_FORM_IMPLICIT_CONST:
                    return implicit in _C_LANGUAGES
                value = _number(info.data, at)[0] if size is None else int.from_bytes(info.data[at : at + size], order)
                return value in _C_LANGUAGES
            after = _after(info.data, at, form, unit)
            if after is None:
                return False
            at = after
    except IndexError:
        raise SourceError("damaged DWARF: an entry reaches past the end of its section") from None
    return False


def _abbreviation(part: Part, offset: int, wanted: int) -> Optional[Tuple[int, bool, List[Tuple[int, int, int]]]]:
    """Tag, whether it has children, and attributes (name, form, implicit value) of an abbreviation."""
    data, at = part.data, part.start + offset
    while True:
        code, at = _number(data, at)
        if code == 0:
            return None
        tag, at = _number(data, at)
        has_children, at = data[at] != 0, at + 1
        attributes: List[Tuple[int, int, int]] = []
        while True:
            name, at = _number(data, at)
            form, at = _number(data, at)
            implicit = 0
            if form == _DW_FORM_IMPLICIT_CONST:
                implicit, at = _number(data, at)
            if name == form == 0:
                break
            attributes.append((name, form, implicit))
        if code == wanted:
            return tag, has_children, attributes


def _after(data: Any, at: int, form: int, unit: Unit) -> Optional[int]:
    """Where the value of this form that is at `at` ends; None if the form is not known here."""
    if form in _FIXED:
        return at + _FIXED[form]
    if form in _LEB128:
        return _number(data, at)[1]
    if form in _OFFSETS:
        return at + (8 if unit.wide else 4)
    if form == _ADDRESS:
        return at + unit.address_size
    if form == _STRING:
        end = data.find(b"\0", at)
        return None if end < 0 else int(end) + 1
    return None


def _number(data: Any, at: int) -> Tuple[int, int]:
    """An unsigned LEB128, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
