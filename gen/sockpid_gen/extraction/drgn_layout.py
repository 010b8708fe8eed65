"""Wanted fields read through drgn. The same walk serves DWARF, which drgn reads itself, and BTF, by our type finder.

That a field is absent is said only of a type that is known whole: not of one that is only declared, nor of one whose
members somebody has left out, as those do that make BTF small (bpftool gen min_core_btf, .BTF.base).
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, Optional

import drgn

from sockpid.errors import SourceError
from sockpid.table.layout import Enum, Field, Layout, Struct, Type, Wanted, parse_path

Namesakes = Callable[[str], Iterable[drgn.Type]]
"""Gives the definitions of a type by its name: there may be several, of which drgn chooses one."""

_STRUCTS = (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION)

_PADDING_MAX = 256
"""Bytes in a struct that belong to no member are fewer than this: a cache line of s390, the longest."""


def extract(prog: drgn.Program, wanted: Wanted, namesakes: Namesakes = lambda _: ()) -> Layout:
    """Where the wanted fields lie, according to the types of `prog`. Same meaning as sockpid.btf.Btf.extract.

    Raises SourceError if a type makes no sense, is only declared, is not whole or is one of several of its name that
    differ in what is wanted; BtfError if it is from BTF and cannot be read.
    """
    layout: Dict[str, Optional[Type]] = {}
    for name, paths in wanted.items():
        try:
            found = prog.type(name)
        except LookupError:
            layout[name] = None
            continue
        try:
            layout[name] = row = _row(found, name, paths)
            others = [other for other in (_row(other, name, paths) for other in namesakes(name)) if other != row]
        except (ValueError, TypeError, OverflowError) as error:
            raise SourceError(f"{name} is damaged: {error}") from None
        if others:
            raise SourceError(f"there are several different types called {name!r}: {row}; {others[0]}")
    return layout


def _row(found: drgn.Type, name: str, wanted: Iterable[str]) -> Type:
    if not found.is_complete():
        raise SourceError(f"{name} is only declared: whether the kernel has it, or what is in it, cannot be told")
    if found.kind == drgn.TypeKind.ENUM:
        assert found.enumerators is not None
        values: Dict[str, int] = {e.name: e.value for e in found.enumerators}
        return Enum(name, drgn.sizeof(found), {want: values.get(want) for want in wanted})
    return Struct(name, drgn.sizeof(found), {path: _field(found, path) for path in wanted})


def _field(outermost: drgn.Type, path: str) -> Optional[Field]:
    here, bit_offset, width = outermost, 0, None
    for step in parse_path(path):
        here = _strip(here)
        if isinstance(step, int):
            if here.kind != drgn.TypeKind.ARRAY or step >= (here.length or step + 1):
                return None
            here = here.type
            bit_offset += step * _bits(here)
        else:
            if here.kind not in _STRUCTS:
                return None
            if not here.is_complete():
                raise SourceError(f"{here.type_name()} on the way to {path} is only declared")
            try:
                member = here.member(step)
            except LookupError:
                demand_whole(here)
                return None
            # Unlike drgn.offsetof(), this knows bit fields.
            here, width = member.type, member.bit_field_size
            bit_offset += member.bit_offset
    here = _strip(here)
    if here.kind == drgn.TypeKind.INT:
        signed = here.is_signed
    else:
        signed = here.kind == drgn.TypeKind.ENUM and here.type.is_signed
    return Field(bit_offset, _bits(here) if width is None else width, width is not None, signed)


def demand_whole(here: drgn.Type) -> None:
    """Raises SourceError if members are missing from a struct or union: there is more room than a compiler leaves."""
    size, end = 8 * drgn.sizeof(here), 0
    members = here.members or ()
    places = [(m.bit_offset, m.bit_field_size or 0, _strip(m.type), m.name) for m in members]
    for offset, width, kind, name in sorted(places, key=lambda place: place[0]):
        _demand_room(here, end, offset)
        end = max(end, offset + (width or _bits(kind)))
        if name is None and kind.kind in _STRUCTS:
            demand_whole(kind)
    _demand_room(here, end, size)
    if size and not members:
        raise SourceError(f"{here.type_name()} of {size // 8} bytes has no members: they were left out")


def _demand_room(here: drgn.Type, start: int, end: int) -> None:
    if end - start >= 8 * _PADDING_MAX:
        raise SourceError(
            f"{here.type_name()}: no member is known at bytes {start // 8} to {end // 8}: some were left out"
        )


def _strip(here: drgn.Type) -> drgn.Type:
    while here.kind == drgn.TypeKind.TYPEDEF:
        here = here.type
    return here


def _bits(here: drgn.Type) -> int:
    here = _strip(here)
    if here.kind == drgn.TypeKind.ARRAY and not here.length:
        return 0
    size: int = drgn.sizeof(here)
    return size * 8
