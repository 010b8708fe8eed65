"""The archive: per kernel all members of the structs that we may ever need, from which tables are made and remade.

One file per architecture and series, `archive/<arch>/<series>.json.xz`. Rows and layouts are content-addressed as in a
table, so that equal structs are stored once. What a file says follows from the kernels alone, not from their order.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from sockpid.arch import of_machine
from sockpid.errors import SchemaError, TableError
from sockpid.table.table import row_id, series_of
from sockpid_gen.extraction import wanted
from sockpid_gen.extraction.difference import compare, words
from sockpid_gen.table.shard import write

from .names import FUNCTIONS
from .rows import Archived, Rows

SCHEMA = "1.0"

Kernel = Dict[str, Any]
"""A kernel as the archive has it, its rows resolved: see archive_record.record_of."""

Document = Dict[str, Any]
"""A file of the archive as JSON has it."""


def intern(kernel: Kernel, rows: Dict[str, Any]) -> Kernel:
    """The same kernel, but rows that are equal to one in `rows` are that one, so that thousands of kernels fit into
    memory; new ones are added."""
    types = {name: row and rows.setdefault(row_id(row), row) for name, row in kernel["types"].items()}
    return {**kernel, "types": types}


def path_of(directory: Path, arch: str, series: str) -> Path:
    """The file of the archive below `directory` that a kernel belongs into."""
    return directory / arch / f"{series}.json.xz"


def read(path: Path) -> List[Kernel]:
    """The kernels in a file of the archive; none if there is no such file. Raises TableError, SchemaError."""
    try:
        document: Document = json.loads(lzma.decompress(path.read_bytes()))
        if document["schema"] != SCHEMA:
            raise SchemaError(f"{path}: archive of schema {document['schema']}, but this sockpid-gen reads {SCHEMA}")
        rows, layouts = document["rows"], document["layouts"]
        for row, value in [*rows.items(), *layouts.items()]:
            if row_id(value) != row:
                raise TableError(f"{path}: row {row} was altered: its content has id {row_id(value)}")
        types = {
            layout: {name: None if row is None else rows[row] for name, row in names.items()}
            for layout, names in layouts.items()
        }
        names = document["functions"]
        return [
            {
                **{key: value for key, value in kernel.items() if key != "layout"},
                "arch": document["arch"],
                "functions": None
                if kernel["functions"] is None
                else {name: n for name, n in zip(names, kernel["functions"], strict=True) if n is not None},
                "types": types[kernel["layout"]],
            }
            for kernel in document["kernels"]
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except (lzma.LZMAError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: damaged, or no archive: {error!r}") from None


def read_all(directory: Path) -> Dict[Path, List[Kernel]]:
    """The kernels of every file of an archive."""
    return {path: read(path) for path in sorted(directory.glob("*/*.json.xz"))}


def merge(kernels: Iterable[Kernel]) -> List[Kernel]:
    """Kernels in the archive's order, each once, with all sources it was found in.

    Of a kernel that was read in several ways, BTF counts more than DWARF. Raises TableError, naming both sources, if
    two say different things about a field that the images read, the number of a function, or who the kernel is: one of
    them is not what it says it is.
    """
    found: Dict[Tuple[str, ...], Kernel] = {}
    for kernel in sorted(kernels, key=lambda k: (k["kind"], k["sources"])):
        key = (kernel["build_id"],) if kernel["build_id"] else (kernel["release"], kernel["banner"] or "")
        known = found.get(key)
        if known is None:
            found[key] = kernel
            continue
        _agree(known, kernel)
        sources = sorted({tuple(source) for source in known["sources"] + kernel["sources"]})
        functions = known["functions"]
        if functions is not None:  # the one may have been read before the other's functions were looked for
            functions = {**(kernel["functions"] or {}), **functions}
        found[key] = {**known, "functions": functions, "sources": [list(source) for source in sources]}
    return sorted(found.values(), key=lambda k: (k["release"], k["build_id"] or "", k["banner"] or ""))


def _agree(one: Kernel, other: Kernel) -> None:
    conflict = _conflict(one, other)
    if conflict is not None:
        where, value, other_value = conflict
        raise TableError(
            f"kernel {one['release']} (build-id {one['build_id']}) is described in two ways, first in {where}: {value} "
            f"in {one['sources'][0][0]} (sha256 {one['sources'][0][1]}), {other_value} in {other['sources'][0][0]} "
            f"(sha256 {other['sources'][0][1]})"
        )


def _conflict(one: Kernel, other: Kernel) -> Optional[Tuple[str, str, str]]:
    """What two records of a kernel differ in, and what each says."""
    for key in ("release", "banner"):
        if one[key] != other[key]:
            return f"its {key}", repr(one[key]), repr(other[key])
    mine, theirs = one["functions"] or {}, other["functions"] or {}
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name] != theirs[name]:
            return f"the BTF id of {name}", mine[name], theirs[name]
    if one["types"] is other["types"] or one["types"] == other["types"]:
        return None
    arch = of_machine(one["arch"])
    left, right = (layout_of(kernel["types"], arch.name)[0] for kernel in (one, other))
    differences = compare(left, right)
    return (differences[0].field, words(differences[0].one), words(differences[0].other)) if differences else None


def layout_of(types: Rows, arch_name: str) -> Tuple[Mapping[str, Any], List[str]]:
    """The fields that the image for an architecture reads, and the names of wanted types that were not archived."""
    arch = of_machine(arch_name)
    fields = wanted.wanted_fields(arch)
    known = {name: paths for name, paths in fields.items() if name in types}
    return Archived(types).extract(known, arch.pointer_size), sorted(fields.keys() - known.keys())


def encode(arch: str, series: str, kernels: Iterable[Kernel]) -> bytes:
    """The content of a file of the archive, before compression.

    A function's number that is not there is not known: the kernel may have been read before it was looked for.
    """
    rows: Dict[str, Any] = {}
    layouts: Dict[str, Dict[str, Optional[str]]] = {}
    entries: List[Document] = []
    ids: Dict[int, str] = {}
    merged = merge(kernels)
    for kernel in merged:
        names: Dict[str, Optional[str]] = {}
        for name, row in kernel["types"].items():
            if row is not None and id(row) not in ids:
                ids[id(row)] = row_id(row)
                rows[ids[id(row)]] = row
            names[name] = None if row is None else ids[id(row)]
        layout = row_id(names)
        layouts[layout] = names
        functions = kernel["functions"]
        entries.append(
            {
                **{key: value for key, value in kernel.items() if key not in ("types", "arch")},
                "layout": layout,
                "functions": None if functions is None else [functions.get(name) for name in FUNCTIONS],
            }
        )
    document = {
        "schema": SCHEMA,
        "arch": arch,
        "series": series,
        "functions": FUNCTIONS,
        "rows": rows,
        "layouts": layouts,
        "kernels": entries,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def save(path: Path, content: bytes) -> bool:
    """Writes a file of the archive if it has other content; whole or not at all. Returns whether it had."""
    try:
        if lzma.decompress(path.read_bytes()) == content:
            return False
    except (OSError, lzma.LZMAError, EOFError):
        pass
    write(path, lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return True


def group(kernels: Iterable[Kernel]) -> Dict[Tuple[str, str], List[Kernel]]:
    """Kernels by architecture and series."""
    groups: Dict[Tuple[str, str], List[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel["arch"], series_of(kernel["release"])), []).append(kernel)
    return groups


def sources_of(directory: Path) -> Iterator[str]:
    """SHA-256 of every file whose kernel the archive has, and need not be read again for functions that are looked for
    only since."""
    for kernels in read_all(directory).values():
        for kernel in kernels:
            if kernel["functions"] is None or kernel["functions"].keys() >= set(FUNCTIONS):
                for _, sha256 in kernel["sources"]:
                    yield sha256
