"""One BTF record: its kind, its length, and what it says (Linux: Documentation/bpf/btf.rst).

The type section is a stream of 32-bit words in the byte order of the kernel it describes. A record is three
words (name offset, info, size or type id) and a tail whose length follows from the info word.
"""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Optional, Sequence, Tuple

BTF_KIND_VOID = 0
BTF_KIND_INT = 1
BTF_KIND_PTR = 2
BTF_KIND_ARRAY = 3
BTF_KIND_STRUCT = 4
BTF_KIND_UNION = 5
BTF_KIND_ENUM = 6
BTF_KIND_FWD = 7
BTF_KIND_TYPEDEF = 8
BTF_KIND_VOLATILE = 9
BTF_KIND_CONST = 10
BTF_KIND_RESTRICT = 11
BTF_KIND_FUNC = 12
BTF_KIND_FUNC_PROTO = 13
BTF_KIND_VAR = 14
BTF_KIND_DATASEC = 15
BTF_KIND_FLOAT = 16
BTF_KIND_DECL_TAG = 17
BTF_KIND_TYPE_TAG = 18
BTF_KIND_ENUM64 = 19

KIND_FLAG = 0x80
"""kind_flag, in the byte that it shares with the kind."""

BTF_INT_SIGNED = 1
BTF_INT_CHAR = 2
BTF_INT_BOOL = 4

TAIL_WORDS: Dict[int, Tuple[int, int]] = {
    BTF_KIND_INT: (1, 0),
    BTF_KIND_PTR: (0, 0),
    BTF_KIND_ARRAY: (3, 0),
    BTF_KIND_STRUCT: (0, 3),
    BTF_KIND_UNION: (0, 3),
    BTF_KIND_ENUM: (0, 2),
    BTF_KIND_FWD: (0, 0),
    BTF_KIND_TYPEDEF: (0, 0),
    BTF_KIND_VOLATILE: (0, 0),
    BTF_KIND_CONST: (0, 0),
    BTF_KIND_RESTRICT: (0, 0),
    BTF_KIND_FUNC: (0, 0),  # its vlen is the linkage
    BTF_KIND_FUNC_PROTO: (0, 2),
    BTF_KIND_VAR: (1, 0),
    BTF_KIND_DATASEC: (0, 3),
    BTF_KIND_FLOAT: (0, 0),
    BTF_KIND_DECL_TAG: (1, 0),
    BTF_KIND_TYPE_TAG: (0, 0),
    BTF_KIND_ENUM64: (0, 3),
}
"""Words after the first three, by kind: (once, per element of vlen)."""


def kind_of(info: int) -> int:
    """The kind: 7 bits. Older kernels define 5 and leave the others zero."""
    return info >> 24 & 0x7F


def vlen_of(info: int) -> int:
    """The number of elements: 24 bits. Older kernels define 16 and leave the others zero."""
    return info & 0xFFFFFF


class Member(NamedTuple):
    """A struct or union member. bitfield_size is its width in bits, or 0 if it was declared without one."""

    name: str
    type: int
    bit_offset: int
    bitfield_size: int


class Variable(NamedTuple):
    """A variable in a section: id of its VAR record, byte offset in the section, size in bytes."""

    type: int
    offset: int
    size: int


class Array(NamedTuple):
    type: int
    index_type: int
    nelems: int


class Record(NamedTuple):
    """A decoded record. Which of the last fields are filled follows from the kind.

    size_or_type: bytes for INT, STRUCT, UNION, ENUM, ENUM64, FLOAT, DATASEC; otherwise the id of the type it
    refers to.
    kind_flag: STRUCT, UNION: members carry bit-field widths; ENUM, ENUM64: values are signed; FWD: it is a
    union.
    detail: the extra word of INT (see the properties), VAR (linkage) and DECL_TAG (component index).
    """

    id: int
    kind: int
    name: str
    size_or_type: int
    kind_flag: bool = False
    vlen: int = 0
    members: Tuple[Member, ...] = ()
    values: Tuple[Tuple[str, int], ...] = ()
    params: Tuple[Tuple[str, int], ...] = ()
    variables: Tuple[Variable, ...] = ()
    array: Optional[Array] = None
    detail: int = 0

    @property
    def int_encoding(self) -> int:
        """Of an INT: BTF_INT_SIGNED | BTF_INT_CHAR | BTF_INT_BOOL."""
        return self.detail >> 24 & 0xF

    @property
    def int_offset(self) -> int:
        """Of an INT: bits to skip before its first bit."""
        return self.detail >> 16 & 0xFF

    @property
    def int_bits(self) -> int:
        """Of an INT: its width in bits; old compilers describe a bit field by one narrower than its size."""
        return self.detail & 0xFF


def decode(id: int, words: Sequence[int], string: Callable[[int], str]) -> Record:
    """The record of type `id` in `words`, exactly its own. `string` turns a name offset into a name."""
    info = words[1]
    kind, vlen, flag = kind_of(info), vlen_of(info), bool(info >> 31)
    record = Record(id, kind, string(words[0]), words[2], flag, vlen)
    if kind in (BTF_KIND_STRUCT, BTF_KIND_UNION):
        members = zip(words[3::3], words[4::3], words[5::3])
        if flag:
            return record._replace(members=tuple(Member(string(n), t, o & 0xFFFFFF, o >> 24) for n, t, o in members))
        return record._replace(members=tuple(Member(string(n), t, o, 0) for n, t, o in members))
    if kind == BTF_KIND_ENUM:
        return record._replace(
            values=tuple(
                (string(n), v - (1 << 32) if flag and v >> 31 else v) for n, v in zip(words[3::2], words[4::2])
            )
        )
    if kind == BTF_KIND_ENUM64:
        wide = ((n, high << 32 | low) for n, low, high in zip(words[3::3], words[4::3], words[5::3]))
        return record._replace(values=tuple((string(n), v - (1 << 64) if flag and v >> 63 else v) for n, v in wide))
    if kind == BTF_KIND_FUNC_PROTO:
        return record._replace(params=tuple((string(n), t) for n, t in zip(words[3::2], words[4::2])))
    if kind == BTF_KIND_DATASEC:
        return record._replace(variables=tuple(map(Variable, words[3::3], words[4::3], words[5::3])))
    if kind == BTF_KIND_ARRAY:
        return record._replace(array=Array(*words[3:6]))
    if kind in (BTF_KIND_INT, BTF_KIND_VAR, BTF_KIND_DECL_TAG):
        return record._replace(detail=words[3])
    return record
