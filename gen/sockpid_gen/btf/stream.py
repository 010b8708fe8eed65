"""BTF read from its first record to its last, with every name looked up where its record says it is.

The second reader: it shares nothing with sockpid.btf, which looks for records and names in ways of its own. What the
two agree on was found in two ways. (Linux: Documentation/bpf/btf.rst, include/uapi/linux/btf.h)
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from sockpid.errors import BtfError

KINDS = (
    "void", "int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile", "const", "restrict", "func",
    "func_proto", "var", "datasec", "float", "decl_tag", "type_tag", "enum64",
)  # fmt: skip
"""By number."""

_WORD = 4
_RECORD = 3
_ONCE = {"int": 1, "array": 3, "var": 1, "decl_tag": 1}
_EACH = {"struct": 3, "union": 3, "enum": 2, "func_proto": 2, "datasec": 3, "enum64": 3}
"""Words behind the first three of a record: once, and for each of its elements."""

_NAMED = frozenset(("int", "struct", "union", "enum", "fwd", "typedef", "float", "enum64"))
"""Kinds of types that can be asked for by name."""

_WORDS_OF_C = ("long", "long int", "unsigned long", "long unsigned int")
"""Names of the integers that are as wide as a pointer wherever Linux runs."""


class Record(NamedTuple):
    """One record. size: or the id of the type that it refers to. length: number of elements. flag: kind_flag.

    rest: the words after the third.
    """

    kind: str
    name: str
    size: int
    length: int
    flag: bool
    rest: Tuple[int, ...]


class Member(NamedTuple):
    """A member. width: of a bit field, in bits; 0 if it is none."""

    name: str
    type: int
    bit_offset: int
    width: int


class Stream:
    """The types of a BTF blob. Raises BtfError if it makes no sense, here or when a record is asked for."""

    def __init__(self, data: bytes) -> None:
        if data[:2] not in (b"\x9f\xeb", b"\xeb\x9f") or len(data) < 24:
            raise BtfError("no BTF: it does not start with its magic number")
        self.byte_order = "little" if data[0] == 0x9F else "big"
        mark = "<" if data[0] == 0x9F else ">"
        version, _, start, types_at, types_size, strings_at, strings_size = struct.unpack_from(
            mark + "BBIIIII", data, 2
        )
        if version != 1:
            raise BtfError(f"BTF version {version} is not supported")
        self._strings = data[start + strings_at : start + strings_at + strings_size]
        types = data[start + types_at : start + types_at + types_size]
        if len(self._strings) < strings_size or len(types) < types_size or types_size % _WORD or start < 24:
            raise BtfError("BTF sections do not fit the data")
        self._words: Tuple[int, ...] = struct.unpack(f"{mark}{types_size // _WORD}I", types)
        sizes = {number: (_ONCE.get(kind, 0), _EACH.get(kind, 0)) for number, kind in enumerate(KINDS)}
        if start >= 32:
            at, size = struct.unpack_from(mark + "II", data, 24)
            layout = data[start + at : start + at + size]
            for number in range(len(KINDS), len(layout) // _WORD):
                sizes[number] = layout[4 * number] // _WORD, layout[4 * number + 1] // _WORD
        self._starts = [-1]
        at, words = 0, self._words
        while at < len(words):
            self._starts.append(at)
            info = words[at + 1] if at + 1 < len(words) else 0
            if info >> 24 & 0x7F not in sizes:
                raise BtfError(f"BTF type {len(self._starts) - 1} is of unknown kind {info >> 24 & 0x7F}")
            once, each = sizes[info >> 24 & 0x7F]
            at += _RECORD + once + each * (info & 0xFFFFFF)
        if at > len(words):
            raise BtfError("the last BTF type runs past the end of the type section")
        self._by_name: Optional[Dict[str, List[int]]] = None

    def __len__(self) -> int:
        """The number of types, and so the highest id."""
        return len(self._starts) - 1

    def record(self, number: int) -> Record:
        if number == 0:
            return Record("void", "void", 0, 0, False, ())
        if number >= len(self._starts):
            raise BtfError(f"BTF type id {number} is out of range (the last is {len(self)})")
        at = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self._words)
        info, kind = self._words[at + 1], self._kind(at)
        return Record(
            kind,
            self.string(self._words[at]),
            self._words[at + 2],
            info & 0xFFFFFF,
            info >= 1 << 31,
            self._words[at + _RECORD : end],
        )

    def members(self, record: Record) -> Iterator[Member]:
        """Of a struct or union."""
        for at in range(0, len(record.rest), 3):
            name, number, place = record.rest[at : at + 3]
            offset, width = (place % (1 << 24), place // (1 << 24)) if record.flag else (place, 0)
            if not width:
                target = self.record(number)
                if target.kind == "int":
                    # Before kind_flag, a bit field was of an int of its own, narrower than its size.
                    _, skipped, bits = self.integer(target)
                    if skipped or bits != target.size * 8:
                        offset, width = offset + skipped, bits
            yield Member(self.string(name), number, offset, width)

    def values(self, record: Record) -> Iterator[Tuple[str, int]]:
        """Of an enum."""
        step = 3 if record.kind == "enum64" else 2
        bits = 32 * (step - 1)
        for at in range(0, len(record.rest), step):
            value = sum(word << 32 * n for n, word in enumerate(record.rest[at + 1 : at + step]))
            yield self.string(record.rest[at]), value - (1 << bits) if record.flag and value >> bits - 1 else value

    @staticmethod
    def integer(record: Record) -> Tuple[int, int, int]:
        """Of an int: its encoding (1: signed, 4: bool), bits to skip before its first, its width in bits."""
        return record.rest[0] >> 24 & 0xF, record.rest[0] >> 16 & 0xFF, record.rest[0] & 0xFF

    def named(self, name: str, *kinds: str) -> List[int]:
        """Ids of all types with this name, wherever the name is in the string section."""
        if self._by_name is None:
            known: Dict[str, List[int]] = {}
            for number in range(1, len(self._starts)):
                at = self._starts[number]
                if self._words[at] and self._kind(at) in _NAMED:
                    known.setdefault(self.string(self._words[at]), []).append(number)
            self._by_name = known
        return [number for number in self._by_name.get(name, ()) if self._kind(self._starts[number]) in kinds]

    def word_size(self) -> Optional[int]:
        """Bytes of a pointer, as the size of C's `long` tells; None if there is none, BtfError if there are several."""
        sizes = {self.record(number).size for name in _WORDS_OF_C for number in self.named(name, "int")}
        if len(sizes) > 1:
            raise BtfError(f"C's `long` has several sizes: {', '.join(map(str, sorted(sizes)))}")
        return sizes.pop() if sizes else None

    def string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if not offset <= end:
            raise BtfError(f"BTF name offset {offset} is past the end of the string section")
        return self._strings[offset:end].decode("utf-8", "backslashreplace")

    def _kind(self, at: int) -> str:
        number = self._words[at + 1] >> 24 & 0x7F
        return KINDS[number] if number < len(KINDS) else f"kind {number}"
