"""Writes shards of the offset table: merges an entry, keeps the canonical form, replaces a file whole or not at all.

docs/offsets-format.md defines what is written here.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import sockpid
from sockpid import data, table
from sockpid.errors import TableError
from sockpid.layout import Enum, Field, Layout, Type

from .entry import KernelEntry

Document = Dict[str, Any]
"""A shard as JSON has it."""


def read(path: Path, arch: str, series: str) -> Document:
    """The document in a file, or an empty one if there is no such file. Raises TableError, SchemaError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return empty(arch, series)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    shard = table.parse_shard(content, str(path))
    if (shard.arch, shard.series) != (arch, series):
        raise TableError(f"{path} is for {shard.arch} {shard.series}, not for {arch} {series}")
    document: Document = json.loads(content)
    return document


def empty(arch: str, series: str) -> Document:
    """A shard without kernels."""
    return {
        "schema": ".".join(map(str, table.SCHEMA)),
        "producer": _producer(),
        "arch": arch,
        "series": series,
        "structs": {},
        "layouts": {},
        "kernels": [],
    }


def kernel_of(shard: table.Shard, entry: table.Entry, layout: Layout) -> KernelEntry:
    """An entry of a decoded shard, with its layout in place of the layout's id."""
    return KernelEntry(
        shard.arch,
        entry.build_id,
        entry.release,
        entry.banner,
        entry.distribution,
        entry.btf_ids,
        entry.provenance,
        layout,
    )


def merge(document: Document, kernel: KernelEntry, name: str) -> bool:
    """Adds a kernel to a document, or brings its entry up to date. `name` is the shard's, for messages.

    Fields that the images no longer read go, new ones come. Another source that says the same changes nothing; then
    the result is False. Raises ConflictError, naming both sources, if the kernel is there with other offsets: one of
    the two is not what it says it is.
    """
    rows = {type_name: None if row is None else _row(row) for type_name, row in kernel.layout.items()}
    ids = {type_name: None if row is None else table.row_id(row) for type_name, row in rows.items()}
    entry: Document = {**kernel._asdict(), "layout": table.row_id(ids)}
    del entry["arch"]
    kernels: List[Document] = document["kernels"]
    known = _find(kernels, entry)
    if known is not None:
        shard = table.parse_shard(canonical(document), name)
        there = shard.entries[kernels.index(known)]
        kernel_of(shard, there, shard.layout(there)).agree(kernel, name)
        if entry["btf_ids"] is None:
            entry["btf_ids"] = known["btf_ids"]
        if {**entry, "provenance": known["provenance"]} == known:
            return False
        kernels.remove(known)
    kernels.append(entry)
    kernels.sort(key=_order)
    document["structs"].update((table.row_id(row), row) for row in rows.values() if row is not None)
    document["layouts"][entry["layout"]] = ids
    _prune(document)
    document["producer"] = _producer()
    return True


def canonical(document: Document) -> bytes:
    """The one form in which a document is written to a file."""
    return (_dump({**document, "kernels": sorted(document["kernels"], key=_order)}, 0) + "\n").encode("ascii")


def trim(content: bytes, keep: Callable[[table.Entry], bool], name: str) -> bytes:
    """A shard's file with the chosen kernels alone, and what these refer to. `name` is the shard's, for messages."""
    document: Document = json.loads(content)
    entries = table.parse_shard(content, name).entries
    pairs = zip(document["kernels"], entries, strict=True)
    document["kernels"] = [kernel for kernel, entry in pairs if keep(entry)]
    _prune(document)
    return canonical(document)


def validate(document: Document, name: str) -> None:
    """Checks a document against the JSON Schema. Raises TableError, naming the place."""
    import jsonschema.exceptions
    import jsonschema.validators

    schema = data.read(f"offsets/schema-{table.SCHEMA[0]}.json")
    if schema is None:
        raise TableError(f"offsets/schema-{table.SCHEMA[0]}.json is not part of this installation")
    validator = jsonschema.validators.Draft202012Validator(json.loads(schema))
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is not None:
        raise TableError(f"{name}: {error.json_path}: {error.message}")


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replaces a file: afterwards, also after a crash, it has the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _find(kernels: List[Document], entry: Document) -> Optional[Document]:
    """The entry of the same kernel: by build-id, and among kernels without, by release and banner."""
    keys = ("build_id",) if entry["build_id"] is not None else ("build_id", "release", "banner")
    return next((kernel for kernel in kernels if all(kernel[key] == entry[key] for key in keys)), None)


def _order(kernel: Document) -> Tuple[str, str, str]:
    return kernel["release"], kernel["build_id"] or "", kernel["banner"]


def _row(row: Type) -> Document:
    if isinstance(row, Enum):
        return {"name": row.name, "size": row.size, "values": dict(row.values)}
    return {"name": row.name, "size": row.size, "fields": {path: _field(f) for path, f in row.fields.items()}}


def _field(field: Optional[Field]) -> Optional[Document]:
    if field is None:
        return None
    place: Document = {"offset": field.offset, "size": field.size}
    if field.bitfield:
        place = {"bit_offset": field.bit_offset, "bit_size": field.bit_size}
    return {**place, "signed": True} if field.signed else place


def _prune(document: Document) -> None:
    layouts = {kernel["layout"] for kernel in document["kernels"]}
    document["layouts"] = {key: row for key, row in document["layouts"].items() if key in layouts}
    structs = {row for layout in document["layouts"].values() for row in layout.values()}
    document["structs"] = {key: row for key, row in document["structs"].items() if key in structs}


def _producer() -> str:
    return f"sockpid-gen {sockpid.__version__}"


def _dump(value: Any, depth: int) -> str:
    if not value or not isinstance(value, (dict, list)):
        return json.dumps(value)
    if depth > 3:
        return json.dumps(value, sort_keys=True)
    indent, items = " " * (depth + 1), []
    if isinstance(value, dict):
        opening, closing = "{", "}"
        items = [f"{json.dumps(key)}: {_dump(value[key], depth + 1)}" for key in sorted(value)]
    else:
        opening, closing = "[", "]"
        items = [_dump(item, depth + 1) for item in value]
    return opening + "\n" + ",\n".join(indent + item for item in items) + "\n" + " " * depth + closing
