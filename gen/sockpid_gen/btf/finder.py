"""BTF for drgn: a type finder that makes a type when drgn asks for it, and a member when it is looked at."""

from __future__ import annotations

from functools import partial
from typing import Callable, Dict, Iterator, List, Optional, Union

import drgn

from sockpid.arch import Arch
from sockpid.errors import BtfError

from .stream import Member, Record, Stream

_ARCHITECTURES = {
    "x86_64": drgn.Architecture.X86_64,
    "aarch64": drgn.Architecture.AARCH64,
    "riscv64": drgn.Architecture.RISCV64,
    "ppc64le": drgn.Architecture.PPC64,
    "s390x": drgn.Architecture.S390X,
    "arm": drgn.Architecture.ARM,
}

_KINDS = {
    drgn.TypeKind.STRUCT: ("struct", "fwd"),
    drgn.TypeKind.UNION: ("union", "fwd"),
    drgn.TypeKind.ENUM: ("enum", "enum64"),
    drgn.TypeKind.TYPEDEF: ("typedef",),
    drgn.TypeKind.INT: ("int",),
    drgn.TypeKind.BOOL: ("int",),
    drgn.TypeKind.FLOAT: ("float",),
}
_KEYWORDS = {"struct": drgn.TypeKind.STRUCT, "union": drgn.TypeKind.UNION, "enum": drgn.TypeKind.ENUM}

_QUALIFIERS = {
    "const": drgn.Qualifiers.CONST,
    "volatile": drgn.Qualifiers.VOLATILE,
    "restrict": drgn.Qualifiers.RESTRICT,
}

_SIGNED, _BOOL = 1, 4
"""Encodings of integers."""

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


class BtfTypes:
    """Makes drgn types of BTF records; each once.

    prog: a drgn program whose only source of types they are. Raises BtfError if the BTF makes no sense, or is not that
    of a kernel for `arch`.
    """

    def __init__(self, data: bytes, arch: Arch) -> None:
        self._stream = Stream(data)
        _demand(self._stream, arch)
        self.prog = drgn.Program(platform(arch))
        self.prog.register_type_finder("btf", self.find, enable_index=0)
        self._types: Dict[int, drgn.Type] = {}

    def __len__(self) -> int:
        return len(self._stream)

    def find(
        self, _prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: Optional[str]
    ) -> Optional[drgn.Type]:
        """drgn's callback. BTF knows no file names, so a type asked for by file is never found."""
        if filename is not None:
            return None
        for kind in kinds:
            found = list(self._named(kind, name))
            if found:
                return next((each for each in found if _is_complete(each)), found[0])
        return None

    def namesakes(self, name: str) -> List[drgn.Type]:
        """Every definition of a struct, union or enum ("struct sock"); drgn itself knows one."""
        keyword, _, tag = name.partition(" ")
        return [each for each in self._named(_KEYWORDS[keyword], tag) if each.is_complete()]

    def _named(self, kind: drgn.TypeKind, name: str) -> Iterator[drgn.Type]:
        found = map(self.type, self._stream.named(name, *_KINDS.get(kind, ())))
        return (each for each in found if each.kind == kind)

    def type(self, type_id: int, depth: int = 0) -> drgn.Type:
        """The drgn type of a BTF type id. Raises BtfError for records that are no types, and reference cycles."""
        known = self._types.get(type_id)
        if known is None:
            if depth >= _MAX_DEPTH:
                raise BtfError(f"BTF type {type_id}: reference cycle, or a chain longer than {_MAX_DEPTH}")
            try:
                known = self._types[type_id] = self._make(type_id, self._stream.record(type_id), depth + 1)
            except (ValueError, TypeError, OverflowError) as error:  # drgn's, for a type that C does not have
                raise BtfError(f"BTF type {type_id}: {error}") from None
        return known

    def _make(self, type_id: int, r: Record, depth: int) -> drgn.Type:
        prog = self.prog
        if r.kind == "void":
            return prog.void_type()
        if r.kind == "int":
            encoding, _, _ = self._stream.integer(r)
            if encoding & _BOOL:
                return prog.bool_type(r.name, r.size)
            return prog.int_type(r.name, r.size, bool(encoding & _SIGNED))
        if r.kind == "float":
            return prog.float_type(r.name, r.size)
        if r.kind == "ptr":
            return prog.pointer_type(self.type(r.size, depth))
        if r.kind == "array":
            element, _, length = r.rest
            return prog.array_type(self.type(element, depth), length)
        if r.kind in ("struct", "union"):
            make = prog.struct_type if r.kind == "struct" else prog.union_type
            return make(r.name or None, r.size, [self._member(m) for m in self._stream.members(r)])
        if r.kind in ("enum", "enum64"):
            if not r.length:
                return prog.enum_type(r.name or None)
            compatible = prog.int_type("int" if r.flag else "unsigned int", r.size, r.flag)
            values = [drgn.TypeEnumerator(*value) for value in self._stream.values(r)]
            return prog.enum_type(r.name or None, compatible, values)
        if r.kind == "fwd":
            return prog.union_type(r.name) if r.flag else prog.struct_type(r.name)
        if r.kind == "typedef":
            return prog.typedef_type(r.name, self.type(r.size, depth))
        if r.kind in _QUALIFIERS:
            qualified = self.type(r.size, depth)
            return qualified.qualified(qualified.qualifiers | _QUALIFIERS[r.kind])
        if r.kind == "type_tag":
            return self.type(r.size, depth)
        if r.kind == "func_proto":
            params = [
                (self._stream.string(name), number) for name, number in zip(r.rest[::2], r.rest[1::2], strict=True)
            ]
            variadic = bool(params) and params[-1] == ("", 0)
            return prog.function_type(
                self.type(r.size, depth),
                [
                    drgn.TypeParameter(partial(self.type, number), name or None)
                    for name, number in (params[:-1] if variadic else params)
                ],
                variadic,
            )
        raise BtfError(f"BTF type {type_id} of kind {r.kind} is not a type")

    def _member(self, m: Member) -> drgn.TypeMember:
        make: Callable[[], Union[drgn.Type, drgn.Object]] = partial(self.type, m.type)
        if m.width:
            make = partial(self._bitfield, m.type, m.width)
        return drgn.TypeMember(make, m.name or None, m.bit_offset)

    def _bitfield(self, type_id: int, width: int) -> drgn.Object:
        try:
            return drgn.Object(self.prog, self.type(type_id), bit_field_size=width)
        except (ValueError, TypeError) as error:
            raise BtfError(f"BTF type {type_id} as a bit field of {width}: {error}") from None


def _demand(stream: Stream, arch: Arch) -> None:
    """Raises BtfError unless byte order and word size are those of the architecture."""
    if stream.byte_order != arch.byte_order:
        raise BtfError(f"the BTF is {stream.byte_order}-endian, but {arch.name} is {arch.byte_order}-endian")
    size = stream.word_size()
    if size not in (None, arch.pointer_size):
        raise BtfError(
            f"the BTF is of a {8 * (size or 0)}-bit kernel, but {arch.name} has {arch.pointer_size * 8} bits"
        )


def _is_complete(found: drgn.Type) -> bool:
    return found.kind not in _KEYWORDS.values() or bool(found.is_complete())
