"""The header of a BTF blob, and the sections it delimits (include/uapi/linux/btf.h, struct btf_header)."""

from __future__ import annotations

import struct

from sockpid.errors import BtfError
from sockpid.namedtuple import NamedTuple

from .record import TAIL_WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Tuple

_VERSION = 1
_HEADER_SIZE = 24
_HEADER_SIZE_WITH_LAYOUT = 32


class Sections(NamedTuple):
    """What a blob holds.

    byte_order: "little" or "big", of every number in it. types, strings: where the sections are in it.
    new_kinds: as btf_record.TAIL_WORDS, for kinds that only the layout section of the blob explains.
    """

    byte_order: str
    types: slice
    strings: slice
    new_kinds: Dict[int, Tuple[int, int]]


def split(data: bytes) -> Sections:
    """The sections of `data`. Raises BtfError if it is not BTF, or if a section reaches past its end."""
    if len(data) < _HEADER_SIZE:
        raise BtfError(f"BTF of {len(data)} bytes is shorter than its header")
    byte_order = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}.get(bytes(data[:2]))
    if byte_order is None:
        raise BtfError(f"no BTF: it starts with bytes {bytes(data[:2]).hex()}, not with eb9f in either order")
    prefix = "<" if byte_order == "little" else ">"
    _, version, _, length, *places = struct.unpack_from(prefix + "HBBIIIII", data)
    if version != _VERSION:
        raise BtfError(f"BTF version {version} is not supported (only {_VERSION})")
    if not _HEADER_SIZE <= length <= len(data):
        raise BtfError(f"BTF header length {length} does not fit {len(data)} bytes of data")
    types = _section(data, length, "type", places[0], places[1])
    strings = _section(data, length, "string", places[2], places[3])
    if places[1] % 4:
        raise BtfError(f"BTF type section of {places[1]} bytes is not a multiple of 4")
    layout = b""
    if length >= _HEADER_SIZE_WITH_LAYOUT:
        layout = data[_section(data, length, "layout", *struct.unpack_from(prefix + "II", data, _HEADER_SIZE))]
    return Sections(byte_order, types, strings, _new_kinds(layout))


def _section(data: bytes, start: int, name: str, offset: int, size: int) -> slice:
    if start + offset + size > len(data):
        raise BtfError(
            f"BTF {name} section ({offset}+{size}) reaches past the end ({len(data) - start} bytes after the header)"
        )
    return slice(start + offset, start + offset + size)


def _new_kinds(layout: bytes) -> Dict[int, Tuple[int, int]]:
    # struct btf_layout { __u8 info_sz; __u8 elem_sz; __u16 flags; }, one for each kind from 0 on. It lets a
    # reader step over kinds that are newer than itself.
    kinds: Dict[int, Tuple[int, int]] = {}
    for kind in range(len(layout) // 4):
        once, each = layout[4 * kind], layout[4 * kind + 1]
        if kind and kind not in TAIL_WORDS:
            if once % 4 or each % 4:
                raise BtfError(f"BTF layout section gives kind {kind} a size that is not a multiple of 4")
            kinds[kind] = (once // 4, each // 4)
    return kinds
