"""Field paths resolved in BTF: "__sk_common.skc_daddr" below a type id becomes an offset in bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, FrozenSet, Iterable, NamedTuple, Optional

from .btf_record import (
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
    Record,
)
from .errors import BtfError
from .layout import Enum, Field, Struct, parse_path

if TYPE_CHECKING:
    from .btf import Btf
    from .layout import Type

_MAX_DEPTH = 32
"""How many types may stand between a type and what it is made of; as the kernel's MAX_RESOLVE_DEPTH."""

_MODIFIERS = frozenset((BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE, BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG))
_AGGREGATES = frozenset((BTF_KIND_STRUCT, BTF_KIND_UNION))
_ENUMS = frozenset((BTF_KIND_ENUM, BTF_KIND_ENUM64))
_SIZED = _AGGREGATES | _ENUMS | {BTF_KIND_INT, BTF_KIND_FLOAT}


class _Place(NamedTuple):
    """A member as seen from the struct that was asked: anonymous structs in between are gone."""

    type: int
    bit_offset: int
    bitfield_size: int


class Resolver:
    """Resolves paths in one BTF. Keeps what it has decoded. `pointer_size` is in bytes: BTF does not say."""

    def __init__(self, btf: Btf, pointer_size: int) -> None:
        self._btf = btf
        self._pointer_bits = pointer_size * 8
        self._records: Dict[int, Record] = {}
        self._places: Dict[int, Dict[str, _Place]] = {}

    def defines(self, type_id: int, kinds: FrozenSet[int]) -> bool:
        """Whether the type is of one of `kinds`, and no mere declaration (an enum without values)."""
        record = self._record(type_id)
        return record.kind in kinds and (record.kind not in _ENUMS or record.vlen > 0)

    def row(self, type_id: int, name: str, wanted: Iterable[str]) -> Type:
        """A struct, union or enum: its size, and each wanted path or enumerator (None if absent)."""
        record = self._record(type_id)
        if record.kind in _ENUMS:
            values = dict(record.values)
            return Enum(name, record.size_or_type, {want: values.get(want) for want in wanted})
        return Struct(name, record.size_or_type, {path: self.field(type_id, path) for path in wanted})

    def field(self, type_id: int, path: str) -> Optional[Field]:
        """Where `path` lies in the struct or union `type_id`; None if there is no such field.

        Raises BtfError if a type on the way is malformed, ValueError if `path` is.
        """
        place = _Place(type_id, 0, 0)
        for step in parse_path(path):
            record = self._strip(place.type)
            if isinstance(step, int):
                if record.array is None or step >= record.array.nelems > 0:
                    return None
                element = record.array.type
                place = _Place(element, place.bit_offset + step * self._bits(element), 0)
            else:
                member = self._members(record).get(step) if record.kind in _AGGREGATES else None
                if member is None:
                    return None
                place = member._replace(bit_offset=place.bit_offset + member.bit_offset)
        return self._scalar(place)

    def _scalar(self, place: _Place) -> Field:
        record = self._strip(place.type)
        signed = False
        if record.kind == BTF_KIND_INT:
            signed = bool(record.int_encoding & BTF_INT_SIGNED)
            # Before kind_flag, the type of a bit field was an int of its own, narrower than its size.
            narrow = record.int_bits != record.size_or_type * 8
            if not place.bitfield_size and (narrow or record.int_offset):
                return Field(place.bit_offset + record.int_offset, record.int_bits, True, signed)
        elif record.kind in _ENUMS:
            signed = record.kind_flag
        if place.bitfield_size:
            return Field(place.bit_offset, place.bitfield_size, True, signed)
        return Field(place.bit_offset, self._bits(place.type), False, signed)

    def _record(self, type_id: int) -> Record:
        record = self._records.get(type_id)
        if record is None:
            record = self._records[type_id] = self._btf.type(type_id)
        return record

    def _strip(self, type_id: int) -> Record:
        record = self._record(type_id)
        for _ in range(_MAX_DEPTH):
            if record.kind not in _MODIFIERS:
                return record
            record = self._record(record.size_or_type)
        raise BtfError(f"BTF type {type_id}: reference cycle, or a chain longer than {_MAX_DEPTH}")

    def _bits(self, type_id: int, depth: int = 0) -> int:
        record = self._strip(type_id)
        if record.kind in _SIZED:
            return record.size_or_type * 8
        if record.kind == BTF_KIND_PTR:
            return self._pointer_bits
        if record.kind == BTF_KIND_ARRAY and record.array is not None:
            if depth >= _MAX_DEPTH:
                raise BtfError(f"BTF type {type_id}: array of itself")
            return record.array.nelems and record.array.nelems * self._bits(record.array.type, depth + 1)
        raise BtfError(f"BTF type {type_id}: a member of kind {record.kind}, which has no size")

    def _members(self, record: Record, depth: int = 0) -> Dict[str, _Place]:
        places = self._places.get(record.id)
        if places is not None:
            return places
        if depth >= _MAX_DEPTH:
            raise BtfError(f"BTF type {record.id}: struct inside itself")
        places = {}
        for name, type_id, bit_offset, bitfield_size in record.members:
            if name:
                places.setdefault(name, _Place(type_id, bit_offset, bitfield_size))
                continue
            inner = self._strip(type_id)
            if inner.kind in _AGGREGATES:  # else an unnamed bit field: padding
                for inner_name, place in self._members(inner, depth + 1).items():
                    places.setdefault(inner_name, place._replace(bit_offset=bit_offset + place.bit_offset))
        self._places[record.id] = places
        return places
