"""BTF, the kernel's own description of its types, read with nothing but the standard library.

Made for one question: where do some forty fields of a dozen structs lie? So nothing is decoded before it is
asked for: the index finds records by number and by name offset, and a name is looked for in the string section.
"""

from __future__ import annotations

import sys

from sockpid.errors import BtfError

from . import header
from .fields import Resolver, Types
from .index import Index
from .record import (
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_FUNC,
    BTF_KIND_FWD,
    BTF_KIND_STRUCT,
    BTF_KIND_UNION,
    BTF_KIND_VOID,
    Record,
    decode,
    kind_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Iterable, List, Optional

    from sockpid.table.layout import Layout, Type, Wanted

KEYWORDS: Dict[str, FrozenSet[int]] = {
    "struct": frozenset((BTF_KIND_STRUCT,)),
    "union": frozenset((BTF_KIND_UNION,)),
    "enum": frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64)),
}
"""The C keyword of a type name, and the kinds it stands for."""

_TAGGED = frozenset().union(*KEYWORDS.values())
FWD_UNION = 1 << 31
"""Of the second word of a declaration: it is a union's."""
_VOID = memoryview(bytes(12)).cast("I")


class Btf(Types):
    """The types of one kernel (or BPF object), or with `base` those of a module on top of its kernel.

    data: bytes, or mapped.content(). byte_order is "little" or "big". Type ids count from 1, or from where the base
    ends; 0 is void.
    Construction checks header and sections; every later call may raise BtfError for what it is the first to
    read: records that reach past the end, unknown kinds, name offsets and type ids out of range, reference
    cycles.
    """

    def __init__(self, data: bytes, base: Optional[Btf] = None) -> None:
        sections = header.split(data)
        self.byte_order = sections.byte_order
        if base is not None and base.byte_order != self.byte_order:
            raise BtfError(f"BTF is {self.byte_order}-endian but its base is {base.byte_order}-endian")
        self._base = base
        self._first_id: int = 1 if base is None else base._first_id + len(base)
        self._first_string: int = 0 if base is None else base._first_string + base._strings_size
        # The sections stay where they are in the blob: copying megabytes costs as much as half of reading them.
        self.data = data
        self._types: slice = sections.types
        self._text: int = sections.strings.start
        self._strings_size: int = sections.strings.stop - self._text
        if base is None and not (self._strings_size and data[self._text] == 0):
            raise BtfError("BTF string section does not start with an empty string")
        if self._strings_size and data[sections.strings.stop - 1] != 0:
            raise BtfError("BTF string section does not end with NUL")
        self._new_kinds = sections.new_kinds
        self._indexed: Optional[Index] = None
        self._named: Dict[FrozenSet[int], Dict[str, List[int]]] = {}

    def __len__(self) -> int:
        """The number of types of its own (without the base's, without void)."""
        return len(self._index())

    def ids(self) -> range:
        """The type ids of its own."""
        return range(self._first_id, self._first_id + len(self))

    def string(self, offset: int) -> str:
        """The string at `offset` of the string section, which continues that of the base."""
        start = offset - self._first_string
        if 0 <= start < self._strings_size:
            start += self._text
            return self.data[start : self.data.find(b"\0", start)].decode("utf-8", "backslashreplace")
        if self._base is not None and offset < self._first_string:
            return self._base.string(offset)
        raise BtfError(f"BTF name offset {offset} is past the end of the string section")

    def strings(self, offsets: Iterable[int]) -> List[bytes]:
        """The strings at many offsets, as they are in the blob."""
        offsets = list(offsets)
        if self._base is None and offsets and max(offsets) < self._strings_size:
            data, text, end_of = self.data, self._text, self.data.find
            return [data[text + offset : end_of(b"\0", text + offset)] for offset in offsets]
        return [self.string(offset).encode("utf-8", "surrogateescape") for offset in offsets]

    def words(self, type_id: int) -> memoryview:
        """The words of the record of a type id. Raises BtfError if the id is out of range."""
        if type_id >= self._first_id:
            try:
                return self._index().record(type_id - self._first_id)
            except IndexError:
                last = self._first_id + len(self) - 1
                raise BtfError(f"BTF type id {type_id} is out of range (the last is {last})") from None
        return _VOID if self._base is None else self._base.words(type_id)

    def type(self, type_id: int) -> Record:
        """The record of a type id, decoded. Raises BtfError if the id is out of range."""
        if type_id == 0:
            return Record(0, BTF_KIND_VOID, "void", 0)
        return decode(type_id, self.words(type_id), self.string)

    def find(self, names: Iterable[str], kinds: FrozenSet[int]) -> Dict[str, List[int]]:
        """Ids of all types of these kinds, by name, ascending; no key for a name without any.

        Records of a split BTF hide those of its base.
        """
        names = set(names)
        searched = _TAGGED if kinds <= _TAGGED else kinds
        known = self._named.setdefault(searched, {})
        missing = names - known.keys()
        if missing:
            known.update((name, []) for name in missing)
            offsets = self._name_offsets(missing)
            for number, offset in self._index().named(offsets, searched):
                known[offsets[offset]].append(self._first_id + number)
        found: Dict[str, List[int]] = {}
        for name in names:
            ids = [i for i in known[name] if kinds == searched or kind_of(self.words(i)[1]) in kinds]
            if ids:
                found[name] = ids
        if self._base is not None:
            found.update(self._base.find(names - found.keys(), kinds))
        return found

    def func_ids(self, names: Iterable[str]) -> Dict[str, int]:
        """Ids of FUNC records by function name; no key for an absent or an ambiguous name."""
        found = self.find(names, frozenset((BTF_KIND_FUNC,)))
        return {name: ids[0] for name, ids in found.items() if len(ids) == 1}

    def extract(self, wanted: Wanted, pointer_size: int) -> Layout:
        """Where the wanted fields lie. `pointer_size` is in bytes: BTF does not say.

        Raises BtfError if a type is only declared, or has a size and no members: whether the kernel has a field is not
        to be told from that; if several types share a name and differ in size or in a wanted field, since nothing tells
        which of them is meant; ValueError if a wanted name is malformed.
        """
        resolver = Resolver(self, pointer_size)
        by_keyword: Dict[str, Dict[str, FrozenSet[str]]] = {}
        for name, paths in wanted.items():
            keyword, _, tag = name.partition(" ")
            if keyword not in KEYWORDS or not tag:
                raise ValueError(f"type name {name!r} does not start with one of {', '.join(KEYWORDS)}")
            by_keyword.setdefault(keyword, {})[tag] = paths
        layout: Dict[str, Optional[Type]] = dict.fromkeys(wanted)
        found = self.find({tag for tags in by_keyword.values() for tag in tags}, _TAGGED)
        for keyword, tags in by_keyword.items():
            for tag, paths in tags.items():
                name = f"{keyword} {tag}"
                ids = [i for i in found.get(tag, ()) if resolver.defines(i, KEYWORDS[keyword])]
                if not ids and self._declares(keyword, tag, found.get(tag, ())):
                    raise BtfError(
                        f"{name} is only declared: whether the kernel has it, or what is in it, cannot be told"
                    )
                rows = [resolver.row(i, name, paths) for i in ids]
                if any(row != rows[0] for row in rows):
                    raise BtfError(f"BTF has several different types called {name!r} (ids {', '.join(map(str, ids))})")
                layout[name] = rows[0] if rows else None
        return layout

    def _declares(self, keyword: str, tag: str, others: Iterable[int]) -> bool:
        """Whether a type that is not defined is declared. others: ids of types of that tag."""
        if keyword == "enum":
            return any(kind_of(self.words(i)[1]) in KEYWORDS[keyword] for i in others)
        forward = self.find({tag}, frozenset((BTF_KIND_FWD,))).get(tag, ())
        return any((self.words(i)[1] & FWD_UNION != 0) == (keyword == "union") for i in forward)

    def _name_offsets(self, names: Iterable[str]) -> Dict[int, str]:
        # A string may be there more than once, and may be the end of another: each place where a name ends is one.
        offsets: Dict[int, str] = {}
        data, start, end = self.data, self._text, self._text + self._strings_size
        encoded = {name: name.encode("utf-8", "surrogateescape") + b"\0" for name in names}
        for shortest in encoded.values():
            if any(other is not shortest and shortest.endswith(other) for other in encoded.values()):
                continue  # it is looked for where that one is
            family = [(name, text) for name, text in encoded.items() if text.endswith(shortest)]
            at = data.find(shortest, start, end)
            while at >= 0:
                for name, text in family:
                    here = at + len(shortest) - len(text)
                    if here >= start and (text is shortest or data[here:at] == text[: at - here]):
                        offsets[self._first_string + here - start] = name
                at = data.find(shortest, at + 1, end)
        if self._base is not None:
            offsets.update(self._base._name_offsets(names))
        return offsets

    def _index(self) -> Index:
        if self._indexed is None:
            data, start, end = self.data, self._types.start, self._types.stop
            if self.byte_order != sys.byteorder:
                from array import array

                words = array("I", data[start:end])
                words.byteswap()
                data, start, end = words.tobytes(), 0, end - start
            self._indexed = Index(data, start, end, self._first_id, self._new_kinds)
        return self._indexed
