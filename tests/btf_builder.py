"""Builds small BTF blobs in either byte order, for tests."""

from __future__ import annotations

import struct
from typing import Iterable, Tuple, Union

Words = Iterable[int]


class BtfBuilder:
    """Appends records; every method returns the id of the type it added. `first_id`, `strings` continue a
    base."""

    def __init__(self, byte_order: str = "little", first_id: int = 1, first_string: int = 0) -> None:
        self.prefix = "<" if byte_order == "little" else ">"
        self.types = b""
        self.strings = b"" if first_string else b"\0"
        self.next_id = first_id
        self._first_string = first_string

    def name(self, text: str) -> int:
        """The offset of `text` in the string section, each string once."""
        if not text:
            return 0
        data = text.encode() + b"\0"
        at = 0 if self.strings.startswith(data) and self._first_string else self.strings.find(b"\0" + data) + 1
        if at == 0 and not (self._first_string and self.strings.startswith(data)):
            at = len(self.strings)
            self.strings += data
        return self._first_string + at

    def record(
        self,
        kind: int,
        name: Union[str, int],
        size: int,
        tail: Words = (),
        *,
        vlen: int = 0,
        flag: bool = False,
    ) -> int:
        offset = self.name(name) if isinstance(name, str) else name
        words = (offset, kind << 24 | vlen | flag << 31, size, *(word & 0xFFFFFFFF for word in tail))
        self.types += struct.pack(f"{self.prefix}{len(words)}I", *words)
        self.next_id += 1
        return self.next_id - 1

    def integer(self, name: str, size: int, signed: bool = False, bits: int = 0, offset: int = 0) -> int:
        return self.record(1, name, size, (signed << 24 | offset << 16 | (bits or size * 8),))

    def pointer(self, to: int) -> int:
        return self.record(2, "", to)

    def array(self, element: int, nelems: int) -> int:
        return self.record(3, "", 0, (element, 1, nelems))

    def struct(self, name: str, size: int, *members: Tuple[str, int, int], kind: int = 4) -> int:
        """Members are (name, type, bit offset)."""
        tail = [word for member, type_id, offset in members for word in (self.name(member), type_id, offset)]
        return self.record(kind, name, size, tail, vlen=len(members))

    def bitfield_struct(self, name: str, size: int, *members: Tuple[str, int, int, int]) -> int:
        """Members are (name, type, bit offset, bit field width or 0); encoded with kind_flag."""
        tail = [word for member, type_id, o, width in members for word in (self.name(member), type_id, width << 24 | o)]
        return self.record(4, name, size, tail, vlen=len(members), flag=True)

    def enum(self, name: str, *values: Tuple[str, int], signed: bool = False, wide: bool = False) -> int:
        tail = [
            word
            for value, number in values
            for word in ((self.name(value), number, number >> 32) if wide else (self.name(value), number))
        ]
        return self.record(19 if wide else 6, name, 8 if wide else 4, tail, vlen=len(values), flag=signed)

    def build(self, layout: bytes = b"") -> bytes:
        length = 32 if layout else 24
        header = struct.pack(
            self.prefix + "HBBIIIII",
            0xEB9F,
            1,
            0,
            length,
            0,
            len(self.types),
            len(self.types),
            len(self.strings),
        )
        if layout:
            header += struct.pack(self.prefix + "II", len(self.types) + len(self.strings), len(layout))
        return header + self.types + self.strings + layout
