"""Writes shards of the offset table: merges an entry, keeps the canonical form, replaces a file whole or not at all.

docs/offsets-format.md defines what is written here. Beside a shard, SERIES.json, lies SERIES.sources, which says where
its entries were read. Only the generator needs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import sockpid
from sockpid import data, table, table_writer, whole_file
from sockpid.errors import TableError
from sockpid.layout import Layout

from .entry import KernelEntry

Document = table_writer.Document


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
        kernel["provenance"] = {**kernel["provenance"], **sources.get(_key(kernel), {})}
    return document


def decode(shard: table.Shard) -> Document:
    """The document of a decoded shard."""
    return {
        "schema": "{}.{}".format(*table.SCHEMA),
        "producer": shard.producer,
        "arch": shard.arch,
        "series": shard.series,
        "structs": dict(shard.structs),
        "layouts": dict(shard.layouts),
        "kernels": [entry._asdict() for entry in shard.entries],
    }


def read_sources(path: Path) -> Dict[str, Any]:
    """Provenance by kernel, from the file beside a shard; empty if there is none. Raises TableError."""
    try:
        sources: Dict[str, Any] = json.loads(path.with_suffix(".sources").read_bytes())["sources"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path.with_suffix('.sources')}: damaged: {error}") from None
    return sources


def empty(arch: str, series: str) -> Document:
    """A shard without kernels."""
    return table_writer.empty(arch, series, _producer())


def save(path: Path, document: Document) -> bool:
    """Writes a document to its file and its provenance to the file beside it. False if both were like that before.

    Raises TableError if it is not as the schema says.
    """
    kernels = [{**k, "provenance": {"kind": k["provenance"]["kind"]}} for k in document["kernels"]]
    content = canonical({**document, "kernels": kernels})
    validate(json.loads(content), str(path))
    changed = False
    # Sources first: at no time is there a kernel of which nobody knows where it is from.
    for file, wanted in ((path.with_suffix(".sources"), sources(document)), (path, content)):
        if not file.exists() or file.read_bytes() != wanted:
            write(file, wanted)
            changed = True
    return changed


def sources(document: Document) -> bytes:
    """The content of the file beside a shard: all provenance but its kind, a line per kernel."""
    lines = [
        f"{json.dumps(_key(kernel))}: "
        + json.dumps({k: v for k, v in kernel["provenance"].items() if k != "kind"}, sort_keys=True)
        for kernel in sorted(document["kernels"], key=table_writer.order)
    ]
    head = f'{{"arch": "{document["arch"]}", "series": "{document["series"]}", "sources": {{\n'
    return (head + ",\n".join(lines) + "\n}}\n").encode("ascii")


def _key(kernel: Document) -> str:
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
    the result is False. Raises ConflictError, naming both sources, if the kernel is there with other offsets: one of
    the two is not what it says it is.
    """
    entry: Document = kernel._asdict()
    del entry["arch"], entry["layout"]
    kernels: List[Document] = document["kernels"]
    known = _find(kernels, entry)
    if known is not None:
        shard = table.parse_shard(canonical(document), name)
        there = next(e for e in shard.entries if _same(e._asdict(), known))
        kernel_of(shard, there, shard.layout(there)).agree(kernel, name)
        if entry["btf_ids"] is None:
            entry["btf_ids"] = known["btf_ids"]
        kernels.remove(known)
    complete = table_writer.add(document, entry, kernel.layout)
    if known is not None and {**complete, "provenance": known["provenance"]} == known:
        kernels[-1] = known
        return False
    document["producer"] = _producer()
    return True


def canonical(document: Document) -> bytes:
    """The one form in which a document is written to a file."""
    return table_writer.encode(document)


def trim(content: bytes, keep: Callable[[table.Entry], bool], name: str) -> bytes:
    """A shard's file with the chosen kernels alone, and what these refer to. `name` is the shard's, for messages."""
    document = decode(table.parse_shard(content, name))
    document["kernels"] = [kernel for kernel in document["kernels"] if keep(table.Entry(**kernel))]
    return canonical(document)


def validate(document: Document, name: str) -> None:
    """Checks a shard, as JSON has it, against the JSON Schema. Raises TableError, naming the place."""
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
    """Replaces a file whole or not at all; its directory is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(str(path), content, mode)


def _find(kernels: List[Document], entry: Document) -> Optional[Document]:
    return next((kernel for kernel in kernels if _same(kernel, entry)), None)


def _same(one: Document, other: Document) -> bool:
    """Whether two entries are of the same kernel: by build-id, and among kernels without, by release and banner."""
    keys = ("build_id",) if one["build_id"] is not None else ("build_id", "release", "banner")
    return all(one[key] == other[key] for key in keys)


def _producer() -> str:
    return f"sockpid-gen {sockpid.__version__}"
