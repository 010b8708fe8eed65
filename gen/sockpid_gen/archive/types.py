"""Whole types of a kernel as rows, out of what drgn makes of its BTF or DWARF."""

from __future__ import annotations

from typing import Any, Collection, Container, FrozenSet, Iterable, List

import drgn

from sockpid.btf.btf import KEYWORDS, Btf
from sockpid.errors import BtfError, SourceError
from sockpid_gen.extraction.drgn_layout import Namesakes, demand_whole

from .names import ROOTS
from .rows import Archived, Row, Rows, members

_PREFIX = {drgn.TypeKind.STRUCT: "struct", drgn.TypeKind.UNION: "union"}


def describe(prog: drgn.Program, roots: Iterable[str] = ROOTS, shared: Collection[str] = ()) -> Rows:
    """Rows of `roots` and of all named types in them by value, according to the types of `prog`, BTF or DWARF.

    `shared`: type names that several types have. They get no row; where one lies in another type, it is spelled out.
    What is only declared gets no row either: whether the kernel has it cannot be told. Raises SourceError if members
    were left out of a type.
    """
    rows: Rows = {}
    walk = _Walk(rows, frozenset(shared))
    for name in roots:
        if name in shared:
            continue
        try:
            found = prog.type(name)
        except LookupError:
            rows.setdefault(name, None)
            continue
        if not found.is_complete():
            continue
        if found.kind == drgn.TypeKind.ENUM:
            values = {e.name: e.value for e in found.enumerators or ()}
            rows[name] = {"name": name, "size": drgn.sizeof(found), "values": values}
        else:
            walk.type(found)
    return rows


def shared_names(btf: Btf, rows: Rows, pointer_size: int) -> FrozenSet[str]:
    """Names of rows that several types of a BTF have whose members lie differently: nothing tells which one is meant.

    (Where pahole could not unite the types of all object files, there are many of equal layout.)
    """
    shared = set()
    for keyword, kinds in KEYWORDS.items():
        tags = [name.partition(" ")[2] for name in rows if name.startswith(keyword + " ")]
        for tag, ids in btf.find(tags, kinds).items():
            name = f"{keyword} {tag}"
            if len(ids) > 1:
                try:
                    btf.extract({name: frozenset(members(rows[name]))}, pointer_size)
                except BtfError:
                    shared.add(name)
    return frozenset(shared)


def describe_dwarf(
    prog: drgn.Program, namesakes: Namesakes, wanted: Container[str], roots: Iterable[str] = ROOTS
) -> Rows:
    """Rows out of DWARF. namesakes: all definitions of a type, looked at for the wanted ones.

    Where they differ, nothing tells which one is meant.
    """
    shared: FrozenSet[str] = frozenset()
    while True:
        rows = describe(prog, roots, shared)
        more = {
            name
            for name, row in rows.items()
            if row is not None
            and name in wanted
            and any(_described(other) != _described(prog.type(name)) for other in namesakes(name))
        }
        if not more:
            return rows
        shared |= more


def _described(kind: drgn.Type) -> Any:
    """A type alone, for comparison with another of its name."""
    if kind.kind == drgn.TypeKind.ENUM:
        return drgn.sizeof(kind), {e.name: e.value for e in kind.enumerators or ()}
    rows: Rows = {}
    name = _Walk(rows, frozenset()).type(kind)
    return rows[name]


def describe_btf(prog: drgn.Program, btf: Btf, pointer_size: int, roots: Iterable[str] = ROOTS) -> Rows:
    """Rows out of a BTF, read by drgn; the other reader must place every member of every row alike.

    `prog`: a program whose types are those of `btf`. Raises BtfError, naming the field, if the two disagree.
    """
    roots = tuple(roots)
    # Found all at once they cost no more than one; drgn asks for one after the other.
    btf.find({name.partition(" ")[2] for name in roots}, frozenset().union(*KEYWORDS.values()))
    shared: FrozenSet[str] = frozenset()
    rows = describe(prog, roots)
    more = shared_names(btf, rows, pointer_size)
    while more:
        shared |= more
        rows = describe(prog, roots, shared)
        more = shared_names(btf, rows, pointer_size)
    wanted = {name: frozenset(members(row)) for name, row in rows.items()}
    mine, theirs = Archived(rows).extract(wanted, pointer_size), btf.extract(wanted, pointer_size)
    for name, row in mine.items():
        if row != theirs[name]:
            raise BtfError(f"two readers of BTF disagree about {name}: {row}; {theirs[name]}")
    return rows


class _Walk:
    """Turns drgn types into type descriptions, and puts the named ones into rows."""

    def __init__(self, rows: Rows, shared: FrozenSet[str]) -> None:
        self._rows, self._shared = rows, shared

    def type(self, kind: drgn.Type) -> Any:
        while kind.kind == drgn.TypeKind.TYPEDEF:
            kind = kind.type
        if kind.kind == drgn.TypeKind.POINTER:
            return "p"
        if kind.kind == drgn.TypeKind.ARRAY:
            element, count = self.type(kind.type), kind.length or 0
            return [count * element[0], element[1]] if isinstance(element, list) else [count, element]
        if kind.kind in _PREFIX:
            return self._struct(kind)
        if kind.kind == drgn.TypeKind.INT:
            signed = kind.is_signed
        else:
            signed = kind.kind == drgn.TypeKind.ENUM and kind.is_complete() and kind.type.is_signed
        return f"{'i' if signed else 'u'}{drgn.sizeof(kind)}"

    def _struct(self, kind: drgn.Type) -> Any:
        if not kind.is_complete():
            raise SourceError(f"{kind.type_name()} lies in another type, and is only declared")
        name = f"{_PREFIX[kind.kind]} {kind.tag}" if kind.tag else ""
        if not name or name in self._shared:
            union = {"union": True} if kind.kind == drgn.TypeKind.UNION else {}
            return {"size": kind.size, "members": self._members(kind), **union}
        if name not in self._rows:
            demand_whole(kind)
            row: Row = {"name": name, "size": kind.size}
            self._rows[name] = row
            row["members"] = self._members(kind)
        return name

    def _members(self, kind: drgn.Type) -> List[List[Any]]:
        return [[m.name or "", m.bit_offset, m.bit_field_size or 0, self.type(m.type)] for m in kind.members or ()]
