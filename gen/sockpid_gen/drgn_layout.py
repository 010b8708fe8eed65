"""Wanted fields read through drgn. The same walk serves DWARF, which drgn reads itself, and BTF, by our type finder."""

from __future__ import annotations

from typing import Dict, Iterable, Optional

import drgn

from sockpid.errors import SourceError
from sockpid.layout import Enum, Field, Layout, Struct, Type, Wanted, parse_path


def extract(prog: drgn.Program, wanted: Wanted) -> Layout:
    """Where the wanted fields lie, according to the types of `prog`. Same meaning as sockpid.btf.Btf.extract.

    Raises SourceError if a type makes no sense, BtfError if it is from BTF and cannot be read.
    """
    layout: Dict[str, Optional[Type]] = {}
    for name, paths in wanted.items():
        try:
            layout[name] = _row(prog, name, paths)
        except (ValueError, TypeError, OverflowError) as error:
            raise SourceError(f"{name} is damaged: {error}") from None
    return layout


def _row(prog: drgn.Program, name: str, wanted: Iterable[str]) -> Optional[Type]:
    try:
        found = prog.type(name)
    except LookupError:
        return None
    if not found.is_complete():
        return None
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
            if here.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION) or not here.is_complete():
                return None
            try:
                member = here.member(step)
            except LookupError:
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
