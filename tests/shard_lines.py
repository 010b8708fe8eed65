"""Writes shards of the offset table without the product's help, so that damaged ones can be written, too."""

from __future__ import annotations

import json
from typing import Any, Dict


def render(value: Dict[str, Any]) -> bytes:
    """A document in lines, as docs/offsets-format.md says it."""
    rest = dict(value)
    kernels, layouts, structs = rest.pop("kernels"), rest.pop("layouts"), rest.pop("structs")
    text = json.dumps(rest, sort_keys=True)[:-1] + ',\n"kernels": [\n'
    text += ",\n".join(json.dumps(kernel, sort_keys=True) for kernel in kernels) + ("\n" if kernels else "")
    for start, rows in (('],\n"layouts": {\n', layouts), ('},\n"structs": {\n', structs)):
        text += start + ",\n".join(f'"{key}": {json.dumps(row, sort_keys=True)}' for key, row in sorted(rows.items()))
        text += "\n" if rows else ""
    return (text + "}}\n").encode()
