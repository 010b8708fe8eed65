"""Where a kernel's memory has what: read out of the archive's whole types, by nothing that makes tables.

Neither sockpid.btf nor sockpid_gen reads these rows here: a member is looked for by its name, through what lies in one
another by value and has no name of its own, and its place is the sum of the places on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sockpid.table.layout import Field, Layout, Struct, Wanted

Types = dict[str, Any]
"""Rows by type name, as docs/archive-format.md has them; None: the kernel has no such type."""


class Step(NamedTuple):
    """A member: bits from the beginning of what it lies in, bits if it is a bit field, else 0, and its type."""

    at: int
    bits: int
    type: Any


def layout(types: Types, wanted: Wanted, pointer_size: int) -> Layout:
    """The wanted fields of a kernel. Raises KeyError for a type that the archive says nothing of."""
    rows: dict[str, Struct | None] = {}
    for name, paths in wanted.items():
        row = types[name]
        fields = {path: place(types, name, path, pointer_size) for path in paths} if row is not None else {}
        rows[name] = None if row is None else Struct(name, row["size"], fields)
    return rows


def place(types: Types, name: str, path: str, pointer_size: int) -> Field | None:
    """Where "a.b[1]" lies in a struct; None: there is no such member."""
    here = Step(0, 0, name)
    for member in path.replace("[", ".[").split("."):
        if member[0] == "[":
            _, element = here.type
            here = Step(here.at + 8 * int(member[1:-1]) * size(types, element, pointer_size), 0, element)
            continue
        found = [Step(here.at + step.at, step.bits, step.type) for step in _members(types, here.type, member)]
        if not found:
            return None
        (here,) = found
    return Field(here.at, here.bits or 8 * size(types, here.type, pointer_size), bool(here.bits))


def _members(types: Types, kind: Any, name: str) -> Iterator[Step]:
    row = types[kind] if isinstance(kind, str) else kind
    for member, at, bits, its in row["members"]:
        if member == name:
            yield Step(at, bits, its)
        elif not member:
            yield from (Step(at + inner.at, inner.bits, inner.type) for inner in _members(types, its, name))


def size(types: Types, kind: Any, pointer_size: int) -> int:
    """Bytes of a type, as the archive spells it."""
    if isinstance(kind, list):
        count, element = kind
        return int(count) * size(types, element, pointer_size)
    if isinstance(kind, dict):
        return int(kind["size"])
    if kind == "p":
        return pointer_size
    if kind[1:].isdigit():
        return int(kind[1:])
    return int(types[kind]["size"])
