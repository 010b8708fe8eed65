"""The offset table: reads one shard, `offsets/<arch>/<series>.json`, as docs/offsets-format.md defines it.

Checked here is what is used here: structure and types of the whole shard when it is parsed, content ids of
the rows of one kernel when its layout is asked for. The generator checks every shard against the JSON Schema
as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Tuple

from .errors import SchemaError, TableError
from .layout import Enum, Field, Layout, Struct, Type

SCHEMA = (1, 0)
"""Major and minor version of the schema that this reader knows."""


class Entry(NamedTuple):
    """One kernel of a shard. layout is the id of its layout; the rest is as in docs/offsets-format.md."""

    build_id: Optional[str]
    release: str
    banner: str
    distribution: Optional[str]
    layout: str
    btf_ids: Optional[Mapping[str, int]]
    provenance: Mapping[str, Any]


class Shard(NamedTuple):
    """One file of the table. `name` is the file's, for messages; structs and layouts are rows by id, undecoded."""

    name: str
    producer: str
    arch: str
    series: str
    structs: Mapping[str, Mapping[str, Any]]
    layouts: Mapping[str, Mapping[str, Any]]
    entries: Tuple[Entry, ...]

    def find(self, build_id: Optional[str], release: str, banner: str) -> Optional[Entry]:
        """The entry for a kernel, or None.

        An equal build-id decides. Where either side has none, release and banner must both be equal; and if
        several entries are, they must agree on the layout.
        """
        if build_id is not None:
            for entry in self.entries:
                if entry.build_id == build_id:
                    return entry
        banner = banner.rstrip()
        found = [
            entry
            for entry in self.entries
            if (entry.release, entry.banner) == (release, banner) and None in (entry.build_id, build_id)
        ]
        return found[0] if len({entry.layout for entry in found}) == 1 else None

    def layout(self, entry: Entry) -> Layout:
        """The offsets of one kernel. Raises TableError if a row of it is missing, malformed or not what its id says."""
        rows = self.layouts.get(entry.layout)
        if rows is None:
            self._fail(f"kernel {entry.release} refers to layout {entry.layout}, which is not there")
        self._verify("layout", entry.layout, rows)
        return {name: None if row is None else self._type(name, row) for name, row in rows.items()}

    def _type(self, name: str, row: Any) -> Type:
        value = self.structs.get(row) if isinstance(row, str) else None
        if value is None:
            self._fail(f"{name} refers to struct row {row!r}, which is not there")
        self._verify("struct row", row, value)
        if value.get("name") != name:
            self._fail(f"struct row {row} is called {value.get('name')!r}, but a layout refers to it as {name!r}")
        try:
            if "values" in value:
                values = {k: None if v is None else _int(v) for k, v in value["values"].items()}
                return Enum(name, _int(value["size"]), values)
            return Struct(name, _int(value["size"]), {k: _field(v) for k, v in value["fields"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            self._fail(f"struct row {row} ({name}) is malformed ({error!r})")

    def _verify(self, what: str, row: str, value: object) -> None:
        if row_id(value) != row:
            self._fail(f"{what} {row} was altered: its content has id {row_id(value)}")

    def _fail(self, message: str) -> NoReturn:
        raise TableError(f"{self.name}: {message}")


def row_id(value: object) -> str:
    """The id of a row: the first 16 hex digits of the SHA-256 of its canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def series_of(release: str) -> str:
    """The series that a kernel release belongs to: "6.1" of "6.1.0-50-cloud-amd64". Raises TableError if
    there is none."""
    match = re.match(r"[0-9]+\.[0-9]+(?![0-9])", release)
    if match is None:
        raise TableError(f"kernel release {release!r} does not start with a version")
    return match.group()


def parse_shard(data: bytes, name: str) -> Shard:
    """Decodes a shard; `name` is the file's, for messages. Raises SchemaError for a schema it does not know,
    TableError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{name}: truncated, or no JSON: {error}") from None
    top = _Reader(name, "the shard", document)
    _check_schema(name, top.get("schema", _str))
    return Shard(
        name,
        top.get("producer", _str),
        top.get("arch", _str),
        top.get("series", _str),
        top.get("structs", _dict_of_dicts),
        top.get("layouts", _dict_of_dicts),
        tuple(_entry(name, number, kernel) for number, kernel in enumerate(top.get("kernels", _list), 1)),
    )


def _check_schema(name: str, schema: str) -> None:
    match = re.match(r"([0-9]+)\.([0-9]+)\Z", schema)
    if match is None:
        raise TableError(f"{name}: schema {schema!r} is no version")
    major, minor = int(match.group(1)), int(match.group(2))
    if major != SCHEMA[0] or minor > SCHEMA[1]:
        raise SchemaError(
            f"{name}: offset table of schema {schema}, but this sockpid reads {SCHEMA[0]}.0 to {SCHEMA[0]}.{SCHEMA[1]}"
        )


def _entry(name: str, number: int, kernel: object) -> Entry:
    reader = _Reader(name, f"kernel {number}", kernel)
    return Entry(
        reader.get("build_id", _optional(_str)),
        reader.get("release", _str),
        reader.get("banner", _str),
        reader.get("distribution", _optional(_str)),
        reader.get("layout", _str),
        reader.get("btf_ids", _optional(_ids)),
        reader.get("provenance", _dict),
    )


class _Reader:
    """One JSON object, whose keys are taken out with a check of what they hold."""

    def __init__(self, name: str, what: str, value: object) -> None:
        if not isinstance(value, dict):
            raise TableError(f"{name}: {what} is not an object")
        self._name, self._what = name, what
        self._value: Dict[str, Any] = value

    def get(self, key: str, check: Callable[[Any], Any]) -> Any:
        if key not in self._value:
            raise TableError(f"{self._name}: {self._what} lacks {key!r}")
        try:
            return check(self._value[key])
        except TypeError as error:
            raise TableError(f"{self._name}: {key!r} of {self._what} is not {error}") from None


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a string")
    return value


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError("an integer")
    return value


def _list(value: object) -> List[Any]:
    if not isinstance(value, list):
        raise TypeError("an array")
    return value


def _dict(value: object) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value


def _dict_of_dicts(value: object) -> Dict[str, Any]:
    if not all(isinstance(row, dict) for row in _dict(value).values()):
        raise TypeError("an object of objects")
    return _dict(value)


def _ids(value: object) -> Dict[str, int]:
    return {name: _int(number) for name, number in _dict(value).items()}


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _field(value: Any) -> Optional[Field]:
    if value is None:
        return None
    signed = value.get("signed", False) is True
    if "bit_size" in value:
        return Field(_int(value["bit_offset"]), _int(value["bit_size"]), True, signed)
    return Field(_int(value["offset"]) * 8, _int(value["size"]) * 8, False, signed)
