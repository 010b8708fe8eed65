"""BTF for drgn: a type finder that decodes a type when drgn asks for it, and a member when it is looked at."""

from __future__ import annotations

from functools import partial
from typing import Callable, Dict, Optional, Union

import drgn

from sockpid import btf_record as record
from sockpid.arch import Arch
from sockpid.btf import Btf
from sockpid.errors import BtfError

_ARCHITECTURES = {
    "x86_64": drgn.Architecture.X86_64,
    "aarch64": drgn.Architecture.AARCH64,
    "riscv64": drgn.Architecture.RISCV64,
    "ppc64le": drgn.Architecture.PPC64,
    "s390x": drgn.Architecture.S390X,
    "arm": drgn.Architecture.ARM,
}

_KINDS = {
    drgn.TypeKind.STRUCT: frozenset((record.BTF_KIND_STRUCT,)),
    drgn.TypeKind.UNION: frozenset((record.BTF_KIND_UNION,)),
    drgn.TypeKind.ENUM: frozenset((record.BTF_KIND_ENUM, record.BTF_KIND_ENUM64)),
    drgn.TypeKind.TYPEDEF: frozenset((record.BTF_KIND_TYPEDEF,)),
    drgn.TypeKind.INT: frozenset((record.BTF_KIND_INT,)),
    drgn.TypeKind.BOOL: frozenset((record.BTF_KIND_INT,)),
    drgn.TypeKind.FLOAT: frozenset((record.BTF_KIND_FLOAT,)),
}

_QUALIFIERS = {
    record.BTF_KIND_CONST: drgn.Qualifiers.CONST,
    record.BTF_KIND_VOLATILE: drgn.Qualifiers.VOLATILE,
    record.BTF_KIND_RESTRICT: drgn.Qualifiers.RESTRICT,
}

_MAX_DEPTH = 256
"""Types between a type and what it is made of, members of structs aside: those are only made when asked for."""


def platform(arch: Arch) -> drgn.Platform:
    """drgn's name for an architecture."""
    flags = drgn.PlatformFlags(0)
    if arch.pointer_size == 8:
        flags |= drgn.PlatformFlags.IS_64_BIT
    if arch.byte_order == "little":
        flags |= drgn.PlatformFlags.IS_LITTLE_ENDIAN
    return drgn.Platform(_ARCHITECTURES[arch.name], flags)


def program(btf: Btf, arch: Arch) -> drgn.Program:
    """A drgn program whose only source of types is `btf`."""
    prog = drgn.Program(platform(arch))
    prog.register_type_finder("btf", BtfTypes(prog, btf).find, enable_index=0)
    return prog


class BtfTypes:
    """Makes drgn types of BTF records; each once."""

    def __init__(self, prog: drgn.Program, btf: Btf) -> None:
        self._prog = prog
        self._btf = btf
        self._types: Dict[int, drgn.Type] = {}

    def find(
        self, _prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: Optional[str]
    ) -> Optional[drgn.Type]:
        """drgn's callback. BTF knows no file names, so a type asked for by file is never found."""
        if filename is not None:
            return None
        for kind in kinds:
            for type_id in self._btf.find((name,), _KINDS.get(kind, frozenset())).get(name, ()):
                found = self.type(type_id)
                if found.kind == kind and (kind != drgn.TypeKind.ENUM or found.is_complete()):
                    return found
        return None

    def type(self, type_id: int, depth: int = 0) -> drgn.Type:
        """The drgn type of a BTF type id. Raises BtfError for records that are no types, and reference cycles."""
        known = self._types.get(type_id)
        if known is None:
            if depth >= _MAX_DEPTH:
                raise BtfError(f"BTF type {type_id}: reference cycle, or a chain longer than {_MAX_DEPTH}")
            try:
                known = self._types[type_id] = self._make(self._btf.type(type_id), depth + 1)
            except (ValueError, TypeError, OverflowError) as error:  # drgn's, for a type that C does not have
                raise BtfError(f"BTF type {type_id}: {error}") from None
        return known

    def _make(self, r: record.Record, depth: int) -> drgn.Type:
        prog = self._prog
        if r.kind == record.BTF_KIND_VOID:
            return prog.void_type()
        if r.kind == record.BTF_KIND_INT:
            if r.int_encoding & record.BTF_INT_BOOL:
                return prog.bool_type(r.name, r.size_or_type)
            return prog.int_type(r.name, r.size_or_type, bool(r.int_encoding & record.BTF_INT_SIGNED))
        if r.kind == record.BTF_KIND_FLOAT:
            return prog.float_type(r.name, r.size_or_type)
        if r.kind == record.BTF_KIND_PTR:
            return prog.pointer_type(self.type(r.size_or_type, depth))
        if r.kind == record.BTF_KIND_ARRAY and r.array is not None:
            return prog.array_type(self.type(r.array.type, depth), r.array.nelems)
        if r.kind in (record.BTF_KIND_STRUCT, record.BTF_KIND_UNION):
            make = prog.struct_type if r.kind == record.BTF_KIND_STRUCT else prog.union_type
            return make(r.name or None, r.size_or_type, [self._member(m) for m in r.members])
        if r.kind in (record.BTF_KIND_ENUM, record.BTF_KIND_ENUM64):
            if not r.values:
                return prog.enum_type(r.name or None)
            compatible = prog.int_type("int" if r.kind_flag else "unsigned int", r.size_or_type, r.kind_flag)
            return prog.enum_type(r.name or None, compatible, [drgn.TypeEnumerator(*v) for v in r.values])
        if r.kind == record.BTF_KIND_FWD:
            return prog.union_type(r.name) if r.kind_flag else prog.struct_type(r.name)
        if r.kind == record.BTF_KIND_TYPEDEF:
            return prog.typedef_type(r.name, self.type(r.size_or_type, depth))
        if r.kind in _QUALIFIERS:
            qualified = self.type(r.size_or_type, depth)
            return qualified.qualified(qualified.qualifiers | _QUALIFIERS[r.kind])
        if r.kind == record.BTF_KIND_TYPE_TAG:
            return self.type(r.size_or_type, depth)
        if r.kind == record.BTF_KIND_FUNC_PROTO:
            variadic = bool(r.params) and r.params[-1] == ("", 0)
            params = r.params[:-1] if variadic else r.params
            return prog.function_type(
                self.type(r.size_or_type, depth),
                [drgn.TypeParameter(partial(self.type, type_id), name or None) for name, type_id in params],
                variadic,
            )
        raise BtfError(f"BTF type {r.id} of kind {r.kind} is not a type")

    def _member(self, m: record.Member) -> drgn.TypeMember:
        width, skipped = m.bitfield_size, 0
        if not width:
            target = self._btf.type(m.type)
            if target.kind == record.BTF_KIND_INT and (target.int_offset or target.int_bits != target.size_or_type * 8):
                width, skipped = target.int_bits, target.int_offset
        make: Callable[[], Union[drgn.Type, drgn.Object]] = partial(self.type, m.type)
        if width:
            make = partial(self._bitfield, m.type, width)
        return drgn.TypeMember(make, m.name or None, m.bit_offset + skipped)

    def _bitfield(self, type_id: int, width: int) -> drgn.Object:
        try:
            return drgn.Object(self._prog, self.type(type_id), bit_field_size=width)
        except (ValueError, TypeError) as error:
            raise BtfError(f"BTF type {type_id} as a bit field of {width}: {error}") from None
