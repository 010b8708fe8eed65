"""The offset table: reads one shard, `offsets/<arch>/<series>.json`, as docs/offsets-format.md defines it.

A shard has a line for each kernel and row, and only the lines that are asked for are decoded: looking up a kernel takes
about as long in a shard of ten kernels as in one of a thousand. What is used is checked, by the same rules for whoever
reads: written form of the lines, types, digests of entries, content ids of rows, and that fields lie in their structs.
The generator reads every line in this way, and holds every shard against the JSON Schema as well.
"""

from __future__ import annotations

from sockpid import plain_json
from sockpid.errors import SchemaError, TableError
from sockpid.namedtuple import NamedTuple
from sockpid.sha256 import sha256

from .layout import Layout, Type
from .rows import Object, Rows, ids_or_nulls, mapping, optional, parse, sorted_names, string, type_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Mapping, NoReturn, Optional, Tuple

SCHEMA = (3, 0)
"""Major and minor version of the schema in which tables are written."""

READ: Dict[int, int] = {2: 0, 3: 0}
"""What this reader knows: the highest minor version by major version. Entries have digests from 3 on."""

MEASURED = ("btf", "dwarf")
KINDS = (*MEASURED, "calibrated")
"""Where offsets are from (provenance, "kind"): of a kernel's own debug information, or found by trying."""

DIGITS = "0123456789"
"""Unlike str.isdigit(), which knows those of all scripts."""

_SECTIONS = (b'"kernels": [', b'"layouts": {', b'"structs": {')
"""The lines after which kernels, layouts and struct rows stand."""

_HEADER = ("schema", "producer", "arch", "series", "functions")
_ENTRY = ("build_id", "release", "banner", "distribution", "layout", "btf_ids", "provenance")
_PROVENANCE = frozenset(("kind", "note", "source", "debug", "sha256", "also", "tools"))
_HEX = "0123456789abcdef"
_DIGITS_MAX = 9


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

    def contradicts(self, release: str, banner: str) -> bool:
        """Whether a kernel of the same build-id cannot be this one: it has another banner, or another release."""
        if banner and self.banner is not None:
            return banner != self.banner
        return release not in ("", self.release)


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
        header = lines[0][:-1] + b"}" if in_form else data
        top = Object(name, "the shard", parse(name, header))
        self.schema = _schema_of(name, top.get("schema", string))
        if not in_form or lines[0][-1:] != b",":
            raise TableError(f"{name}: not in the form in which sockpid-gen writes it")
        top.demand_keys(_HEADER)
        top.demand_form(header)
        self.producer: str = top.get("producer", string)
        self.arch: str = top.get("arch", string)
        self.series: str = top.get("series", string)
        self._functions: List[str] = top.get("functions", sorted_names)
        self._kernels = self._separated("kernel", lines[2 : layouts - 1])
        self.layouts = Rows(name, "layout", self._separated("layout", lines[layouts + 1 : structs - 1]))
        self.structs = Rows(name, "struct row", self._separated("struct row", lines[structs + 1 : -2]))
        self._entries: Optional[Tuple[Entry, ...]] = None
        keys = list(map(_order, self._kernels))
        for number, (one, other) in enumerate(zip(keys, keys[1:]), 1):
            if one >= other:
                self._fail(f"kernels {number} and {number + 1} are one kernel, or not in their order")

    def _separated(self, what: str, lines: List[bytes]) -> List[bytes]:
        """The lines of a section without the commas between them."""
        if any(line[-1:] != b"," for line in lines[:-1]) or (lines and lines[-1][-1:] == b","):
            self._fail(f"not in the form in which sockpid-gen writes it: a {what} does not end in its line")
        return [line[:-1] for line in lines[:-1]] + lines[-1:]

    def __len__(self) -> int:
        return len(self._kernels)

    @property
    def entries(self) -> Tuple[Entry, ...]:
        """Every kernel, in the order of the file."""
        if self._entries is None:
            self._entries = tuple(map(self._entry, self._kernels))
        return self._entries

    def find(self, build_id: Optional[str], release: str, banner: str) -> Optional[Entry]:
        """The entry for a kernel, or None. An empty release or banner is one that is not known.

        An equal build-id decides, unless the banner (or the release, where the entry has no banner) contradicts it.
        Where either side has no build-id, release and banner must both be equal; and if several entries are, they must
        agree on the layout. Raises TableError if the entry is damaged, or there twice.
        """
        banner = banner.rstrip()
        if build_id is not None:
            same = [entry for entry in self._mentioning(build_id) if entry.build_id == build_id]
            if len(same) > 1:
                self._fail(f"build-id {build_id} is there {len(same)} times")
            if same:
                return None if same[0].contradicts(release, banner) else same[0]
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
        kernel = Object(self.name, f"kernel {self._kernels.index(line) + 1}", parse(self.name, line))
        kernel.demand_form(line)
        ids = kernel.get("btf_ids", optional(ids_or_nulls))
        if ids is not None and len(ids) != len(self._functions):
            self._fail(f"a kernel has {len(ids)} BTF ids, but the shard names {len(self._functions)} functions")
        entry = Entry(
            kernel.get("build_id", optional(_build_id)),
            kernel.get("release", string),
            kernel.get("banner", optional(_banner)),
            kernel.get("distribution", optional(string)),
            kernel.get("layout", string),
            None if ids is None else {name: n for name, n in zip(self._functions, ids) if n is not None},
            kernel.get("provenance", mapping),
        )
        who = f"kernel {entry.release} ({entry.build_id or 'no build-id'})"
        kind = entry.provenance.get("kind")
        if kind not in KINDS or not isinstance(entry.provenance.get("note", ""), str):
            self._fail(f"{who} is from {kind!r}; this sockpid knows {', '.join(KINDS)}")
        if not _PROVENANCE.issuperset(entry.provenance):
            self._fail(f"{who}: unknown keys in its provenance: {', '.join(set(entry.provenance) - _PROVENANCE)}")
        if not entry.release.startswith(self.series) or series_of(entry.release) != self.series:
            self._fail(f"{who[:99]} does not belong to series {self.series}")
        kernel.demand_keys(_ENTRY if self.schema[0] < 3 else (*_ENTRY, "digest"))
        if self.schema[0] >= 3:
            right = digest(self.arch, entry._asdict())
            if kernel.get("digest", string) != right:
                self._fail(f"{who} was altered: its digest is {kernel.value['digest']}, its content has {right}")
        return entry

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
            return type_of(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._fail(f"struct row {row} ({name}) is malformed: {error}")

    def _verify(self, what: str, row: str, value: object) -> None:
        if row_id(value) != row:
            self._fail(f"{what} {row} was altered: its content has id {row_id(value)}")

    def _fail(self, message: str) -> NoReturn:
        raise TableError(f"{self.name}: {message}")


def row_id(value: object) -> str:
    """The id of a row: the first 16 hex digits of the SHA-256 of its canonical JSON."""
    return sha256(plain_json.canonical(value).encode("ascii")).hexdigest()[:16]


def digest(arch: str, kernel: Mapping[str, Any]) -> str:
    """The digest of an entry, made as ids of rows are: of all that the entry says and its architecture.

    kernel: the entry with its BTF ids by function name.
    """
    return row_id({**kernel, "arch": arch})


def is_measured(provenance: Mapping[str, Any]) -> bool:
    """Whether an entry was read from that very kernel's debug information: neither found by trying, nor concluded from
    other kernels, which a note says."""
    return provenance.get("kind") in MEASURED and "note" not in provenance


def series_of(release: str) -> str:
    """The series that a kernel release belongs to: "6.1" of "6.1.0-50-cloud-amd64". Raises TableError if
    there is none."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip(DIGITS))]
    if not _is_number(minor) or not _is_number(major):
        raise TableError(f"kernel release {release[:99]!r} does not start with a version")
    return f"{major}.{minor}"


def parse_shard(data: bytes, name: str) -> Shard:
    """Decodes a shard; `name` is the file's, for messages. Raises SchemaError for a schema it does not know,
    TableError."""
    return Shard(name, data)


def _schema_of(name: str, schema: str) -> Tuple[int, int]:
    first, _, second = schema.partition(".")
    if not (_is_number(first) and _is_number(second)):
        raise TableError(f"{name}: schema {schema[:99]!r} is no version")
    major, minor = int(first), int(second)
    if minor > READ.get(major, -1):
        known = " and ".join(f"{m}.0 to {m}.{n}" if n else f"{m}.0" for m, n in sorted(READ.items()))
        raise SchemaError(f"{name}: offset table of schema {schema}, but this sockpid reads {known}")
    return major, minor


def _is_number(text: str) -> bool:
    """Whether a text is a number as the one who writes it writes it."""
    return text != "" and not text.strip(DIGITS) and len(text) <= _DIGITS_MAX and (text[0] != "0" or text == "0")


def _build_id(value: object) -> str:
    text = string(value)
    if not text or text.strip(_HEX) or len(text) % 2:
        raise TypeError("bytes in lower-case hex")
    return text


def _banner(value: object) -> str:
    text = string(value)
    if not text.startswith("Linux version ") or text != text.rstrip():
        raise TypeError("a version banner")
    return text


def _order(line: bytes) -> Tuple[bytes, bytes, bytes]:
    """By what a kernel's line is sorted: release, build-id and banner, as they stand in it."""
    release = line[line.rfind(b'"release": "') + 12 : -2]
    build_id = line[line.find(b'"build_id": ') + 12 :]
    build_id = build_id[1 : build_id.find(b'"', 1)] if build_id[:1] == b'"' else b""
    banner = line[12 : line.find(b'", "btf_ids": ')] if line[11:12] == b'"' else b""
    return release, build_id, banner
