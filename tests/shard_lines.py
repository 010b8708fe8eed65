"""Writes shards of the offset table without the product's help, so that damaged ones can be written, too."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict


def render(value: Dict[str, Any], *, sealed: bool = True) -> bytes:
    """A document in lines, as docs/offsets-format.md says it. sealed: every entry gets the digest of what it says."""
    rest = dict(value)
    kernels, layouts, structs = rest.pop("kernels"), rest.pop("layouts"), rest.pop("structs")
    if sealed and str(rest.get("schema", "")).startswith("3."):
        kernels = [
            {**kernel, "digest": digest(rest, kernel)} if isinstance(kernel, dict) else kernel for kernel in kernels
        ]
    text = json.dumps(rest, sort_keys=True)[:-1] + ',\n"kernels": [\n'
    text += ",\n".join(json.dumps(kernel, sort_keys=True) for kernel in kernels) + ("\n" if kernels else "")
    for start, rows in (('],\n"layouts": {\n', layouts), ('},\n"structs": {\n', structs)):
        text += start + ",\n".join(f'"{key}": {json.dumps(row, sort_keys=True)}' for key, row in sorted(rows.items()))
        text += "\n" if rows else ""
    return (text + "}}\n").encode()


def digest(document: Dict[str, Any], kernel: Dict[str, Any]) -> str:
    """The digest of an entry as it stands in a document."""
    ids = kernel.get("btf_ids")
    if isinstance(ids, list):
        named = dict(zip(document.get("functions", ()), ids, strict=False))
        ids = {name: number for name, number in named.items() if number is not None}
    content = {**kernel, "arch": document.get("arch"), "btf_ids": ids}
    content.pop("digest", None)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
