"""The written form of a shard: rows of types, and lines. docs/offsets-format.md defines it, table.py reads it.

Part of the runtime because a host without debug information can calibrate a table of its own.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .layout import Enum, Field, Layout, Type
from .table import SCHEMA, digest, row_id

Document = Dict[str, Any]
"""A shard in memory: schema, producer, arch, series; structs and layouts by id; kernels, a list of entries.

An entry in memory has its BTF ids by function name ("btf_ids"), and all of its provenance.
"""


def empty(arch: str, series: str, producer: str) -> Document:
    """A shard without kernels."""
    return {
        "schema": "{}.{}".format(*SCHEMA),
        "producer": producer,
        "arch": arch,
        "series": series,
        "structs": {},
        "layouts": {},
        "kernels": [],
    }


def add(document: Document, entry: Mapping[str, Any], layout: Layout) -> Document:
    """Adds a kernel to a document and returns its entry: `entry` without a layout, and the id of its layout."""
    rows = {name: None if row is None else _row(row) for name, row in layout.items()}
    ids = {name: None if row is None else row_id(row) for name, row in rows.items()}
    complete = {**entry, "layout": row_id(ids)}
    document["structs"].update((row_id(row), row) for row in rows.values() if row is not None)
    document["layouts"][complete["layout"]] = ids
    document["kernels"].append(complete)
    return complete


def encode(document: Document) -> bytes:
    """The bytes of a shard file, in the document's schema. Rows that no kernel uses are left out."""
    kernels = sorted(document["kernels"], key=order)
    used = {kernel["layout"] for kernel in kernels}
    layouts = {key: row for key, row in document["layouts"].items() if key in used}
    structs = {row for layout in layouts.values() for row in layout.values()}
    functions = sorted({name for kernel in kernels for name in kernel["btf_ids"] or ()})
    header = {
        "schema": document["schema"],
        "producer": document["producer"],
        "arch": document["arch"],
        "series": document["series"],
        "functions": functions,
    }
    lines = [_line(header)[:-1] + ",", '"kernels": [']
    lines += _separated([_line(_entry(kernel, functions, document)) for kernel in kernels])
    for what, rows in (("layouts", layouts), ("structs", document["structs"])):
        lines += ["]," if what == "layouts" else "},", f'"{what}": {{']
        lines += _separated(
            [f'"{key}": {_line(row)}' for key, row in sorted(rows.items()) if what == "layouts" or key in structs]
        )
    return ("\n".join([*lines, "}}"]) + "\n").encode("ascii")


def order(kernel: Mapping[str, Any]) -> Tuple[str, str, str]:
    """The key by which kernels of a shard are sorted."""
    release, build_id, banner = (kernel[key] or "" for key in ("release", "build_id", "banner"))
    return json.dumps(release)[1:-1], build_id, json.dumps(banner)[1:-1]


def _entry(kernel: Mapping[str, Any], functions: List[str], document: Document) -> Document:
    ids = kernel["btf_ids"]
    entry = {**kernel, "btf_ids": None if ids is None else [ids.get(name) for name in functions]}
    if not document["schema"].startswith("2."):
        entry["digest"] = digest(document["arch"], kernel)
    return entry


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _separated(lines: List[str]) -> List[str]:
    return [line + "," for line in lines[:-1]] + lines[-1:]


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
