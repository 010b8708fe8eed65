"""ELF notes: the build-id of a kernel, the version in a vDSO."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional, Tuple

NT_GNU_BUILD_ID = 3


def parse_notes(data: bytes, byte_order: str) -> Iterator[Tuple[str, int, bytes]]:
    """The notes in a section or segment: owner's name, type, descriptor. Stops where the data makes no sense.

    Name and descriptor are padded to 4 bytes (man 5 elf, Nhdr), also in 64-bit files.
    """
    mark = "<" if byte_order == "little" else ">"
    position = 0
    while position + 12 <= len(data):
        namesz, descsz, note_type = struct.unpack_from(mark + "III", data, position)
        position += 12
        desc = position + (namesz + 3 & ~3)
        end = desc + descsz
        if end > len(data):
            return
        yield data[position : position + namesz].rstrip(b"\0").decode("ascii", "replace"), note_type, data[desc:end]
        position = desc + (descsz + 3 & ~3)


def build_id(data: bytes, byte_order: str) -> Optional[str]:
    """The GNU build-id among notes, in hex, or None."""
    for name, note_type, desc in parse_notes(data, byte_order):
        if name == "GNU" and note_type == NT_GNU_BUILD_ID:
            return desc.hex()
    return None
