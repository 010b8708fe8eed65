"""Writes shards of the offset table: merges an entry, keeps the canonical form, replaces a file whole or not at all.

docs/offsets-format.md defines what is written here. Beside a shard, SERIES.json, lies SERIES.sources, which says where
its entries were read. Only the generator needs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import sockpid
from sockpid import data, whole_file
from sockpid.errors import TableError
from sockpid.table import table, writer
from sockpid.table.layout import Layout
from sockpid_gen.extraction.entry import KernelEntry

Document = writer.Document

_KEPT = ("kind", "note")
"""What of an entry's provenance is in the shard itself."""


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
    document = decode(shard)
    sources = read_sources(path)
    for kernel in document["kernels"]:
        # What the shard says has a digest; so it counts more.
        kernel["provenance"] = {**sources.get(source_key(kernel), {}), **kernel["provenance"]}
    return document


def decode(shard: table.Shard) -> Document:
    """The document of a decoded shard, in its schema; every entry of it has been verified."""
    return {
        "schema": "{}.{}".format(*shard.schema),
        "producer": shard.producer,
        "arch": shard.arch,
        "series": shard.series,
        "structs": dict(shard.structs),
        "layouts": dict(shard.layouts),
        "kernels": [entry._asdict() for entry in shard.entries],
    }


def read_sources(path: Path) -> Dict[str, Any]:
    """Provenance by kernel, from the file beside a shard; empty if there is none. Raises TableError."""
    file = path.with_suffix(".sources")
    try:
        document: Dict[str, Any] = json.loads(file.read_bytes())
        sources: Dict[str, Any] = document["sources"]
        if (document["arch"], document["series"]) != (path.parent.name, path.stem):
            raise TableError(f"{file} is for {document['arch']} {document['series']}, which its path does not say")
        for kernel, provenance in sources.items():
            if not isinstance(provenance, dict) or "kind" in provenance:
                raise ValueError(f"{kernel} has no provenance")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TableError(f"{file}: damaged: {error}") from None
    return sources


def empty(arch: str, series: str) -> Document:
    """A shard without kernels."""
    return writer.empty(arch, series, _producer())


def save(path: Path, document: Document) -> bool:
    """Writes a document to its file and its provenance to the file beside it. False if both were like that before.

    The shard itself keeps what decides about who believes an entry: its kind, and the note of one that was concluded.
    Raises TableError if it is not as the schema says.
    """
    kernels = [
        {**k, "provenance": {key: value for key, value in k["provenance"].items() if key in _KEPT}}
        for k in document["kernels"]
    ]
    content = canonical({**document, "schema": "{}.{}".format(*table.SCHEMA), "kernels": kernels})
    validate(json.loads(content), str(path))
    changed = False
    # Sources first: at no time is there a kernel of which nobody knows where it is from.
    for file, wanted in ((path.with_suffix(".sources"), sources(document)), (path, content)):
        if not file.exists() or file.read_bytes() != wanted:
            write(file, wanted)
            changed = True
    return changed


def sources(document: Document) -> bytes:
    """The content of the file beside a shard: all provenance that is not in the shard itself, a line per kernel."""
    lines = [
        f"{json.dumps(source_key(kernel))}: "
        + json.dumps({k: v for k, v in kernel["provenance"].items() if k not in _KEPT}, sort_keys=True)
        for kernel in sorted(document["kernels"], key=writer.order)
    ]
    head = f'{{"arch": "{document["arch"]}", "series": "{document["series"]}", "sources": {{\n'
    return (head + ",\n".join(lines) + "\n}}\n").encode("ascii")


def source_key(kernel: Document) -> str:
    """What a kernel is called in the file of sources."""
    return kernel["build_id"] or f"{kernel['release']} {kernel['banner']}"


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
    the result is False. What was measured takes the place of what was found by trying or concluded, never the other way
    round. Raises ConflictError, naming both sources, if the kernel is there and anything that is said of it differs:
    one of the two is not what it says it is.
    """
    entry: Document = kernel._asdict()
    del entry["arch"], entry["layout"]
    kernels: List[Document] = document["kernels"]
    known: Optional[Document] = None
    if kernels:
        shard = table.parse_shard(canonical(document), name)
        for one, there in zip(sorted(kernels, key=writer.order), shard.entries):
            found = kernel_of(shard, there, {})._replace(provenance=one["provenance"])
            if found.key == kernel.key:
                known = one
            elif not found.is_same_kernel(kernel):
                continue
            found._replace(layout=shard.layout(there)).agree(kernel, name)
    if known is not None:
        if table.is_measured(known["provenance"]) and not kernel.measured:
            return False
        # A source without BTF, or with that of fewer functions, takes no ids away.
        both = {**(known["btf_ids"] or {}), **(entry["btf_ids"] or {})}
        entry["btf_ids"] = both if both or known["btf_ids"] is not None else entry["btf_ids"]
        kernels.remove(known)
    complete = writer.add(document, entry, kernel.layout)
    alike = known is not None and kernel.measured == table.is_measured(known["provenance"])
    if known is not None and alike and {**complete, "provenance": known["provenance"]} == known:
        kernels[-1] = known
        return False
    document["producer"] = _producer()
    return True


def canonical(document: Document) -> bytes:
    """The one form in which a document is written to a file."""
    return writer.encode(document)


def trim(content: bytes, keep: Callable[[table.Entry], bool], name: str) -> bytes:
    """A shard's file with the chosen kernels alone, and what these refer to. `name` is the shard's, for messages."""
    document = decode(table.parse_shard(content, name))
    document["kernels"] = [kernel for kernel in document["kernels"] if keep(table.Entry(**kernel))]
    return canonical(document)


def validate(document: Document, name: str) -> None:
    """Checks a shard, as JSON has it, against the JSON Schema of its version. Raises TableError, naming the place."""
    import jsonschema.exceptions
    import jsonschema.validators

    version = str(document.get("schema", "")).partition(".")[0]
    schema = data.read(f"offsets/schema-{version}.json") if version in map(str, table.READ) else None
    if schema is None:
        raise TableError(f"{name}: offsets/schema-{version[:9]}.json is not part of this installation")
    validator = jsonschema.validators.Draft202012Validator(json.loads(schema))
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is not None:
        raise TableError(f"{name}: {error.json_path}: {error.message}")


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replaces a file whole or not at all; its directory is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(str(path), content, mode)


def _producer() -> str:
    return f"sockpid-gen {sockpid.__version__}"
