"""Kernel types as offsets: the common coin of table, BTF, DWARF and relocation.

Names are C's own: a type is "struct sock" or "enum tcp_ca_state"; a field is the path an expression would use below
it, with anonymous members skipped and array elements indexed: "__sk_common.skc_daddr", "regs[0]".
"""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import FrozenSet, List, Mapping, Optional, Tuple, Union


class Field(NamedTuple):
    """Where a field lies. Both numbers count bits from the start of the outermost struct.

    bitfield: declared with a width. Its bit_offset counts from the least significant bit of the byte on little-endian
    and from the most significant one on big-endian machines, as in BTF (Documentation/bpf/btf.rst) and DWARF 4.
    signed: the (scalar) type is signed.
    """

    bit_offset: int
    bit_size: int
    bitfield: bool = False
    signed: bool = False

    @property
    def offset(self) -> int:
        """Byte offset; of a bit field, that of the byte it starts in."""
        return self.bit_offset // 8

    @property
    def size(self) -> int:
        """Size in bytes; of a bit field, rounded up."""
        return (self.bit_size + 7) // 8


class Struct(NamedTuple):
    """A struct or union: name ("struct sock"), sizeof in bytes, fields by path (None: looked for and absent)."""

    name: str
    size: int
    fields: Mapping[str, Optional[Field]]


class Enum(NamedTuple):
    """An enum: name ("enum tcp_ca_state"), sizeof in bytes, enumerators (None: looked for and absent)."""

    name: str
    size: int
    values: Mapping[str, Optional[int]]


if TYPE_CHECKING:
    Type = Union[Struct, Enum]
    Layout = Mapping[str, Optional[Type]]
    """Types by name. None: the type was looked for and the kernel has none of that name."""

    Wanted = Mapping[str, FrozenSet[str]]
    """What to look for: type name -> field paths or enumerators (may be empty: the type's existence alone)."""
else:
    Type = Layout = Wanted = object  # names to import, which only annotations use


def parse_path(path: str) -> Tuple[Union[str, int], ...]:
    """The steps of a field path, members as str and array indices as int: "a.regs[0]" is ("a", "regs", 0).

    Raises ValueError if `path` is not of that form.
    """
    steps: List[Union[str, int]] = []
    for part in path.split("."):
        member, *indices = part.split("[")
        if not (path.isascii() and member.isidentifier() and all(map(_is_index, indices))):
            raise ValueError(f"{path!r} is not a field path")
        steps.append(member)
        steps.extend(int(index[:-1]) for index in indices)
    return tuple(steps)


def _is_index(text: str) -> bool:
    return text[-1:] == "]" and text[:-1].isdigit()
