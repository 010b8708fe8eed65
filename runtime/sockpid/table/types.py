"""Rows of an offset table as kernel types. What a compiler cannot have said is refused."""

from __future__ import annotations

from .layout import Enum, Field, Struct
from .rows import integer, mapping, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional

    from .layout import Type

_BITS_MAX = 1 << 32
"""Where a field may end, in bits from the start of its struct: BTF and the images have 32 bits for it."""

_BIT_FIELD_MAX = 64


def type_of(row: Mapping[str, Any]) -> Type:
    """The type that a struct row describes. Raises KeyError, TypeError, ValueError if it makes no sense."""
    name, size = string(row["name"]), integer(row["size"])
    if not 0 <= size <= _BITS_MAX // 8:
        raise ValueError(f"a size of {size} bytes")
    keyword = name.partition(" ")[0]
    if set(row) == {"name", "size", "values"} and keyword == "enum":
        values = {key: None if value is None else _enumerator(value) for key, value in mapping(row["values"]).items()}
        return Enum(name, size, values)
    if set(row) != {"name", "size", "fields"} or keyword not in ("struct", "union"):
        raise ValueError(f"its keys are {', '.join(sorted(row))}")
    return Struct(name, size, {path: _field(path, value, size) for path, value in mapping(row["fields"]).items()})


def _field(path: str, value: Any, size: int) -> Optional[Field]:
    if value is None:
        return None
    place = dict(mapping(value))
    signed = place.pop("signed", False)
    if set(place) == {"bit_offset", "bit_size"}:
        field = Field(integer(place["bit_offset"]), integer(place["bit_size"]), True, signed)
        if not 0 < field.bit_size <= _BIT_FIELD_MAX:
            raise ValueError(f"{path} is a bit field of {field.bit_size} bits")
    elif set(place) == {"offset", "size"}:
        field = Field(integer(place["offset"]) * 8, integer(place["size"]) * 8, False, signed)
    else:
        raise ValueError(f"{path} has the keys {', '.join(sorted(place))}")
    if signed is not ("signed" in value):
        raise ValueError(f"'signed' of {path} is not true")
    # Elements of a flexible array lie behind their struct.
    if not 0 <= field.bit_offset <= field.bit_offset + field.bit_size <= (_BITS_MAX if "[" in path else size * 8):
        raise ValueError(f"{path} does not lie in its struct, which has {size} bytes")
    return field


def _enumerator(value: object) -> int:
    number = integer(value)
    if not -1 << 63 <= number < 1 << 64:
        raise ValueError(f"an enumerator of {number}")
    return number
