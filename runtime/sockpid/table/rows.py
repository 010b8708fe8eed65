"""Lines of an offset table as JSON objects and as kernel types, for table.py: decoded when asked for, and checked.

What a compiler cannot have said is refused.
"""

from __future__ import annotations

from sockpid import plain_json
from sockpid.errors import TableError

from .layout import Enum, Field, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Dict, Iterator, KeysView, List, Mapping, Optional, Sequence, Tuple

    from .layout import Type

_BITS_MAX = 1 << 32
"""Where a field may end, in bits from the start of its struct: BTF and the images have 32 bits for it."""

_BIT_FIELD_MAX = 64


class Rows:
    """Rows by id, out of lines of a shard. Each is decoded when it is asked for; TableError if it cannot be.

    A mapping. That of collections.abc, to derive from, would bring all of collections.
    """

    def __init__(self, name: str, what: str, lines: Sequence[bytes]) -> None:
        self._name, self._what = name, what
        # A line is: "0123456789abcdef": {...}
        ids = [line[1:17] for line in lines]
        for one, other in zip(ids, ids[1:]):
            if one >= other:
                shown = other.decode("ascii", "replace")
                raise TableError(f"{name}: {what} {shown} is there twice, or not in its order")
        self._lines = {line[1:17].decode("ascii", "replace"): line for line in lines}
        self._decoded: Dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        if key not in self._decoded:
            line = self._lines[key]
            if line[:1] != b'"' or line[17:20] != b'": ':
                raise TableError(f"{self._name}: {self._what} {key} is malformed")
            row = Object(self._name, f"{self._what} {key}", parse(self._name, line[20:]))
            row.demand_form(line[20:])
            self._decoded[key] = row.value
        return self._decoded[key]

    def __contains__(self, key: object) -> bool:
        return key in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, key: str) -> Optional[Mapping[str, Any]]:
        return self[key] if key in self._lines else None

    def keys(self) -> KeysView[str]:
        return self._lines.keys()

    def values(self) -> Iterator[Mapping[str, Any]]:
        return (self[key] for key in self._lines)

    def items(self) -> Iterator[Tuple[str, Mapping[str, Any]]]:
        return ((key, self[key]) for key in self._lines)


def parse(name: str, data: bytes) -> object:
    """The value of a JSON document of file `name`. Raises TableError."""
    try:
        return plain_json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{name}: truncated, or no JSON: {error}") from None


class Object:
    """One JSON object, whose keys are taken out with a check of what they hold: one of the functions below, which
    raise TypeError. `name` and `what` are for messages."""

    def __init__(self, name: str, what: str, value: object) -> None:
        if not isinstance(value, dict):
            raise TableError(f"{name}: {what} is not an object")
        self._name, self._what = name, what
        self.value: Dict[str, Any] = value

    def demand_keys(self, keys: Collection[str]) -> None:
        """Raises TableError unless these are its keys."""
        for key in keys:
            self.get(key, lambda value: value)
        if len(self.value) > len(keys):
            unknown = ", ".join(sorted(map(repr, self.value.keys() - set(keys))))
            raise TableError(f"{self._name}: {self._what} has unknown keys: {unknown}")

    def demand_form(self, line: bytes) -> None:
        """Raises TableError unless `line` is what is written of it: in this form no key is there twice."""
        try:
            written = plain_json.spaced(self.value).encode("ascii")
        except RecursionError:  # read, and yet too deep to be written
            written = b""
        if written != line:
            raise TableError(f"{self._name}: {self._what} is not in the form in which sockpid-gen writes it")

    def get(self, key: str, check: Callable[[Any], Any]) -> Any:
        """Raises TableError if the key is not there, or what it holds is not what it has to be."""
        if key not in self.value:
            raise TableError(f"{self._name}: {self._what} lacks {key!r}")
        try:
            return check(self.value[key])
        except TypeError as error:
            raise TableError(f"{self._name}: {key!r} of {self._what} is not {error}") from None


def string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a string")
    return value


def integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("an integer")
    return value


def array(value: object) -> List[Any]:
    if not isinstance(value, list):
        raise TypeError("an array")
    return value


def mapping(value: object) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value


def sorted_names(value: object) -> List[str]:
    names = [string(item) for item in array(value)]
    if names != sorted(set(names)):
        raise TypeError("an array of names in their order")
    return names


def ids_or_nulls(value: object) -> List[Optional[int]]:
    ids = [None if item is None else integer(item) for item in array(value)]
    if any(item is not None and not 0 <= item < 1 << 32 for item in ids):
        raise TypeError("an array of type ids")
    return ids


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


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
