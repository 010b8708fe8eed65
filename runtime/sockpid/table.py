"""The offset table: reads one shard, `offsets/<arch>/<series>.json`, as docs/offsets-format.md defines it.

A shard has a line for each kernel and row, and only the lines that are asked for are decoded: looking up a kernel takes
about as long in a shard of ten kernels as in one of a thousand. What is used is checked: form and types of the lines,
content ids of the rows. The generator checks every shard against the JSON Schema as well.
"""

from __future__ import annotations

from . import plain_json
from .errors import SchemaError, TableError
from .layout import Enum, Field, Layout, Struct, Type
from .named import NamedTuple
from .rows import Object, Rows, integer, integers_or_nulls, loads, mapping, optional, string, strings
from .sha256 import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, List, Mapping, NoReturn, Optional, Tuple

SCHEMA = (2, 0)
"""Major and minor version of the schema that this reader knows."""

DIGITS = "0123456789"
"""Unlike str.isdigit(), which knows those of all scripts."""

_SECTIONS = (b'"kernels": [', b'"layouts": {', b'"structs": {')
"""The lines after which kernels, layouts and struct rows stand."""


class Entry(NamedTuple):
    """One kernel of a shard. layout is the id of its layout; the rest is as in docs/offsets-format.md.

    With neither build_id nor banner, the kernel is known by its release alone, which is not enough to recognise it.
    """

    build_id: Optional[str]
    release: str
    banner: Optional[str]
    distribution: Optional[str]
    layout: str
    btf_ids: Optional[Mapping[str, int]]
    provenance: Mapping[str, Any]


class Shard:
    """One file of the table. `name` is the file's, for messages; structs and layouts are rows by id."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        lines = data.split(b"\n")
        try:
            kernels, layouts, structs = (lines.index(line) for line in _SECTIONS)
        except ValueError:
            kernels = layouts = structs = 0
        in_form = (kernels, lines[layouts - 1], lines[structs - 1], lines[-2:]) == (1, b"],", b"},", [b"}}", b""])
        # In another form it may be a table of another schema, which is worth another message.
        top = Object(name, "the shard", loads(name, lines[0][:-1] + b"}" if in_form else data))
        _check_schema(name, top.get("schema", string))
        if not in_form:
            raise TableError(f"{name}: not in the form in which sockpid-gen writes it")
        self.producer: str = top.get("producer", string)
        self.arch: str = top.get("arch", string)
        self.series: str = top.get("series", string)
        self._functions: List[str] = top.get("functions", strings)
        self._kernels = [line.rstrip(b",") for line in lines[2 : layouts - 1]]
        self.layouts = Rows(name, "layout", [line.rstrip(b",") for line in lines[layouts + 1 : structs - 1]])
        self.structs = Rows(name, "struct row", [line.rstrip(b",") for line in lines[structs + 1 : -2]])
        self._entries: Optional[Tuple[Entry, ...]] = None

    @property
    def entries(self) -> Tuple[Entry, ...]:
        """Every kernel, in the order of the file."""
        if self._entries is None:
            self._entries = tuple(map(self._entry, self._kernels))
        return self._entries

    def find(self, build_id: Optional[str], release: str, banner: str) -> Optional[Entry]:
        """The entry for a kernel, or None.

        An equal build-id decides. Where either side has none, release and banner must both be equal; and if
        several entries are, they must agree on the layout.
        """
        if build_id is not None:
            for entry in self._mentioning(build_id):
                if entry.build_id == build_id:
                    return entry
        banner = banner.rstrip()
        found = [
            entry
            for entry in self._mentioning(release)
            if (entry.release, entry.banner) == (release, banner) and None in (entry.build_id, build_id)
        ]
        return found[0] if len({entry.layout for entry in found}) == 1 else None

    def _mentioning(self, text: str) -> Iterator[Entry]:
        """The entries in whose lines a text stands, as an ASCII JSON string writes it."""
        needle = plain_json.canonical(text)[1:-1].encode("ascii")
        return (self._entry(line) for line in self._kernels if needle in line)

    def _entry(self, line: bytes) -> Entry:
        kernel = Object(self.name, f"kernel {self._kernels.index(line) + 1}", loads(self.name, line))
        ids = kernel.get("btf_ids", optional(integers_or_nulls))
        if ids is not None and len(ids) != len(self._functions):
            self._fail(f"a kernel has {len(ids)} BTF ids, but the shard names {len(self._functions)} functions")
        return Entry(
            kernel.get("build_id", optional(string)),
            kernel.get("release", string),
            kernel.get("banner", optional(string)),
            kernel.get("distribution", optional(string)),
            kernel.get("layout", string),
            None if ids is None else {name: n for name, n in zip(self._functions, ids) if n is not None},
            kernel.get("provenance", mapping),
        )

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
                values = {k: None if v is None else integer(v) for k, v in value["values"].items()}
                return Enum(name, integer(value["size"]), values)
            return Struct(name, integer(value["size"]), {k: _field(v) for k, v in value["fields"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            self._fail(f"struct row {row} ({name}) is malformed ({error!r})")

    def _verify(self, what: str, row: str, value: object) -> None:
        if row_id(value) != row:
            self._fail(f"{what} {row} was altered: its content has id {row_id(value)}")

    def _fail(self, message: str) -> NoReturn:
        raise TableError(f"{self.name}: {message}")


def row_id(value: object) -> str:
    """The id of a row: the first 16 hex digits of the SHA-256 of its canonical JSON."""
    return sha256(plain_json.canonical(value).encode("ascii")).hexdigest()[:16]


def series_of(release: str) -> str:
    """The series that a kernel release belongs to: "6.1" of "6.1.0-50-cloud-amd64". Raises TableError if
    there is none."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip(DIGITS))]
    if not minor or not _is_number(major):
        raise TableError(f"kernel release {release!r} does not start with a version")
    return f"{major}.{minor}"


def parse_shard(data: bytes, name: str) -> Shard:
    """Decodes a shard; `name` is the file's, for messages. Raises SchemaError for a schema it does not know,
    TableError."""
    return Shard(name, data)


def _check_schema(name: str, schema: str) -> None:
    first, _, second = schema.partition(".")
    if not (_is_number(first) and _is_number(second)):
        raise TableError(f"{name}: schema {schema!r} is no version")
    major, minor = int(first), int(second)
    if major != SCHEMA[0] or minor > SCHEMA[1]:
        raise SchemaError(
            f"{name}: offset table of schema {schema}, but this sockpid reads {SCHEMA[0]}.0 to {SCHEMA[0]}.{SCHEMA[1]}"
        )


def _is_number(text: str) -> bool:
    return text != "" and not text.strip(DIGITS)


def _field(value: Any) -> Optional[Field]:
    if value is None:
        return None
    signed = value.get("signed", False) is True
    if "bit_size" in value:
        return Field(integer(value["bit_offset"]), integer(value["bit_size"]), True, signed)
    return Field(integer(value["offset"]) * 8, integer(value["size"]) * 8, False, signed)
