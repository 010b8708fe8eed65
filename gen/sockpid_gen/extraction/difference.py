"""Two layouts held against each other, field by field, and fields in words."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, NamedTuple

from sockpid.table.layout import Field, Layout, Struct


class Difference(NamedTuple):
    """One place where two layouts differ.

    field: "struct sock.sk_protocol", "sizeof(struct sock)", or a type's name where only one side has the type. one,
    other: what each side says: a Field, None (absent), an enumerator's value or a size in bytes.
    """

    field: str
    one: Any
    other: Any


def compare(one: Layout, other: Layout) -> List[Difference]:
    """Every difference between two layouts, among what both speak of."""
    differences: List[Difference] = []
    for name in sorted(one.keys() & other.keys()):
        mine, theirs = one[name], other[name]
        if mine is None or theirs is None or type(mine) is not type(theirs):
            if mine != theirs:
                differences.append(Difference(name, mine, theirs))
            continue
        if mine.size != theirs.size:
            differences.append(Difference(f"sizeof({name})", mine.size, theirs.size))
        left: Dict[str, Any] = dict(mine.fields if isinstance(mine, Struct) else mine.values)
        right: Dict[str, Any] = dict(theirs.fields if isinstance(theirs, Struct) else theirs.values)
        differences.extend(
            Difference(f"{name}.{path}", left[path], right[path])
            for path in sorted(left.keys() & right.keys())
            if left[path] != right[path]
        )
    return differences


def facts(layout: Layout) -> FrozenSet[str]:
    """All that a layout speaks of: types, fields and enumerators, absent ones too, as compare() names them."""
    found = set(layout)
    for name, row in layout.items():
        if row is not None:
            found.update(f"{name}.{path}" for path in (row.fields if isinstance(row, Struct) else row.values))
    return frozenset(found)


def words(value: Any) -> str:
    """One side of a difference as people read it: "540 (2 bytes)", "bit 4097 (1 bit)", "absent", "= 3"."""
    if value is None:
        return "absent"
    if isinstance(value, Field):
        what = ("bit" if value.bit_size == 1 else "bits") if value.bitfield else "bytes"
        what = "byte" if what == "bytes" and value.size == 1 else what
        place = f"bit {value.bit_offset} ({value.bit_size}" if value.bitfield else f"{value.offset} ({value.size}"
        return f"{place} {what}{', signed' if value.signed else ''})"
    return str(value) if isinstance(value, (int, str)) else f"there ({value.size} bytes)"
