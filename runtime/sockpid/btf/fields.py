"""Field paths resolved in BTF: "__sk_common.skc_daddr" below a type id becomes an offset in bits."""

from __future__ import annotations

from sockpid.errors import BtfError
from sockpid.namedtuple import NamedTuple
from sockpid.table.layout import Enum, Field, Struct, parse_path

from .record import (
    BTF_INT_SIGNED,
    BTF_KIND_ARRAY,
    BTF_KIND_CONST,
    BTF_KIND_ENUM,
    BTF_KIND_ENUM64,
    BTF_KIND_FLOAT,
    BTF_KIND_INT,
    BTF_KIND_PTR,
    BTF_KIND_RESTRICT,
    BTF_KIND_STRUCT,
    BTF_KIND_TYPE_TAG,
    BTF_KIND_TYPEDEF,
    BTF_KIND_UNION,
    BTF_KIND_VOLATILE,
    decode,
    kind_of,
    vlen_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Iterable, List, Optional, Tuple

    from sockpid.table.layout import Type

    from .record import Record

_MAX_DEPTH = 32
"""How many types may stand between a type and what it is made of; as the kernel's MAX_RESOLVE_DEPTH."""

_MODIFIERS = frozenset((BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG))
_AGGREGATES = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION))
_ENUMS = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64))
_SIZED = _AGGREGATES | _ENUMS | {BTF_KIND_INT, BTF_KIND_FLOAT}


class _Place(NamedTuple):
    """A member. bit_offset: from the start of the struct that was asked."""

    type: int
    bit_offset: int
    bitfield_size: int


class _Solid(NamedTuple):
    """A type without its modifiers. words: of its record."""

    id: int
    kind: int
    words: memoryview


class Types:
    """The types of one kernel, as far as a Resolver asks for them: see Btf."""

    def words(self, type_id: int) -> memoryview:
        raise NotImplementedError

    def type(self, type_id: int) -> Record:
        raise NotImplementedError

    def string(self, offset: int) -> str:
        raise NotImplementedError

    def strings(self, offsets: Iterable[int]) -> List[bytes]:
        raise NotImplementedError


class Resolver:
    """Resolves paths in one BTF. Keeps what it has decoded. `pointer_size` is in bytes: BTF does not say."""

    def __init__(self, btf: Types, pointer_size: int) -> None:
        self._btf = btf
        self._pointer_bits = pointer_size * 8
        self._solids: Dict[int, _Solid] = {}
        self._members: Dict[int, Tuple[Dict[bytes, int], List[int]]] = {}

    def defines(self, type_id: int, kinds: FrozenSet[int]) -> bool:
        """Whether the type is of one of `kinds`, and no mere declaration (an enum without values)."""
        info = self._btf.words(type_id)[1]
        kind = kind_of(info)
        return kind in kinds and (kind not in _ENUMS or vlen_of(info) > 0)

    def row(self, type_id: int, name: str, wanted: Iterable[str]) -> Type:
        """A struct, union or enum: its size, and each wanted path or enumerator (None if absent)."""
        words = self._btf.words(type_id)
        if kind_of(words[1]) in _ENUMS:
            values = dict(self._btf.type(type_id).values)
            return Enum(name, words[2], {want: values.get(want) for want in wanted})
        return Struct(name, words[2], {path: self.field(type_id, path) for path in wanted})

    def field(self, type_id: int, path: str) -> Optional[Field]:
        """Where `path` lies in the struct or union `type_id`; None if there is no such field.

        Raises BtfError if a type on the way is malformed, ValueError if `path` is.
        """
        place = _Place(type_id, 0, 0)
        for step in parse_path(path):
            here = self._strip(place.type)
            if isinstance(step, int):
                if here.kind != BTF_KIND_ARRAY:
                    return None
                element, _, nelems = here.words[3:]
                if step >= nelems > 0:
                    return None
                place = _Place(element, place.bit_offset + step * self._bits(element), 0)
            else:
                member = self._member(here, step.encode()) if here.kind in _AGGREGATES else None
                if member is None:
                    if here.kind in _AGGREGATES and here.words[2] and not vlen_of(here.words[1]):
                        size, called = here.words[2], self._btf.type(here.id).name
                        raise BtfError(
                            f"BTF type {here.id} ({called}) of {size} bytes has no members: they were left out"
                        )
                    return None
                place = member._replace(bit_offset=place.bit_offset + member.bit_offset)
        return self._scalar(place)

    def _scalar(self, place: _Place) -> Field:
        here = self._strip(place.type)
        signed = False
        if here.kind == BTF_KIND_INT:
            whole = decode(here.id, here.words, self._btf.string)
            signed = bool(whole.int_encoding & BTF_INT_SIGNED)
            # Before kind_flag, the type of a bit field was an int of its own, narrower than its size.
            narrow = whole.int_bits != whole.size_or_type * 8
            if not place.bitfield_size and (narrow or whole.int_offset):
                return Field(place.bit_offset + whole.int_offset, whole.int_bits, True, signed)
        elif here.kind in _ENUMS:
            signed = bool(here.words[1] >> 31)
        if place.bitfield_size:
            return Field(place.bit_offset, place.bitfield_size, True, signed)
        return Field(place.bit_offset, self._bits(place.type), False, signed)

    def _strip(self, type_id: int) -> _Solid:
        solid = self._solids.get(type_id)
        if solid is not None:
            return solid
        at = type_id
        for _ in range(_MAX_DEPTH):
            words = self._btf.words(at)
            kind = kind_of(words[1])
            if kind not in _MODIFIERS:
                solid = self._solids[type_id] = _Solid(at, kind, words)
                return solid
            at = words[2]
        raise BtfError(f"BTF type {type_id}: reference cycle, or a chain longer than {_MAX_DEPTH}")

    def _bits(self, type_id: int, depth: int = 0) -> int:
        here = self._strip(type_id)
        if here.kind in _SIZED:
            return here.words[2] * 8
        if here.kind == BTF_KIND_PTR:
            return self._pointer_bits
        if here.kind == BTF_KIND_ARRAY:
            if depth >= _MAX_DEPTH:
                raise BtfError(f"BTF type {type_id}: array of itself")
            element, _, nelems = here.words[3:]
            return nelems and nelems * self._bits(element, depth + 1)
        raise BtfError(f"BTF type {type_id}: a member of kind {here.kind}, which has no size")

    def _member(self, here: _Solid, name: bytes, depth: int = 0) -> Optional[_Place]:
        if depth >= _MAX_DEPTH:
            raise BtfError(f"BTF type {here.id}: struct inside itself")
        positions, anonymous = self._members_of(here)
        position = positions.get(name)
        if position is not None:
            return _place(here.words, position)
        for position in anonymous:
            outer = _place(here.words, position)
            inner = self._strip(outer.type)
            if inner.kind in _AGGREGATES:  # else an unnamed bit field: padding
                place = self._member(inner, name, depth + 1)
                if place is not None:
                    return place._replace(bit_offset=outer.bit_offset + place.bit_offset)
        return None

    def _members_of(self, here: _Solid) -> Tuple[Dict[bytes, int], List[int]]:
        """Positions of the named members of a struct or union, and those of the others."""
        members = self._members.get(here.id)
        if members is None:
            names = self._btf.strings(here.words[3::3])
            anonymous = [position for position, name in enumerate(names) if not name]
            # Of members of the same name, as only damaged BTF has them, the first counts.
            positions = dict(zip(reversed(names), range(len(names) - 1, -1, -1)))
            positions.pop(b"", None)
            members = self._members[here.id] = (positions, anonymous)
        return members


def _place(words: memoryview, position: int) -> _Place:
    _, type_id, offset = words[3 * position + 3 : 3 * position + 6]
    if words[1] >> 31:
        return _Place(type_id, offset & 0xFFFFFF, offset >> 24)
    return _Place(type_id, offset, 0)
