"""The table as a picture: one self-contained HTML page, fields by kernel versions, for browsers without a network.

atlas.html is the page; what it shows is put into it as JSON, of which this module is the only writer:

* kernels: [architecture, series, release, flavour, build-id, distribution, kind, source, sha256, index into layouts],
  by architecture, then from old to new
* fields: {name, type, path, values: [[short text, text, absent]], programs}, values from small to large
* layouts: per layout, the index into `values` for each field, or -1 where it does not speak of it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Set

import sockpid
from sockpid.arch import ARCHES
from sockpid.table.layout import Field
from sockpid.table.table import series_of
from sockpid_gen.extraction.difference import words
from sockpid_gen.extraction.wanted import image_for
from sockpid_gen.kernel.release import flavour
from sockpid_gen.table.table import Table

from .cover import values
from .uses import uses

_PAGE = Path(__file__).with_name("atlas.html")
_MARK = "/*data*/"


def page(table: Table) -> bytes:
    """The page, UTF-8. Equal tables give equal bytes."""
    data = json.dumps(_data(table), ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    # In a script element nothing is escaped but what could end it.
    return _PAGE.read_text(encoding="utf-8").replace(_MARK, data.replace("<", "\\u003c")).encode()


def _data(table: Table) -> Dict[str, Any]:
    kernels = list(table)
    known = {id(kernel.layout): dict(values(kernel.layout)) for kernel in kernels}
    arches = {ARCHES[kernel.arch] for kernel in kernels}
    using: Dict[str, Set[str]] = {}
    for arch in arches:
        for name, found in uses(image_for(arch), arch).items():
            using.setdefault(name, set()).update(use.program for use in found)
    fields: List[Dict[str, Any]] = []
    places: Dict[int, List[int]] = {key: [] for key in known}
    for name in sorted({name for row in known.values() for name in row}):
        distinct: List[Any] = sorted({row[name] for row in known.values() if name in row}, key=_order)
        for key, row in known.items():
            places[key].append(distinct.index(row[name]) if name in row else -1)
        type_name, _, path = name.partition(".")
        fields.append(
            {
                "name": name,
                "type": type_name,
                "path": path or "(the type itself)",
                "values": [[_short(value), words(value), value is None] for value in distinct],
                "programs": sorted(using.get(name, ())),
            }
        )
    # Layouts of the table also differ in sizes of structs, which nothing here shows.
    layouts = {row: n for n, row in enumerate(dict.fromkeys(tuple(places[id(kernel.layout)]) for kernel in kernels))}
    return {
        "producer": f"sockpid-gen {sockpid.__version__}",
        "fields": fields,
        "layouts": list(layouts),
        "kernels": [
            [
                kernel.arch,
                series_of(kernel.release),
                kernel.release,
                flavour(kernel.release),
                kernel.build_id,
                kernel.distribution,
                kernel.provenance.get("kind"),
                kernel.provenance.get("source"),
                kernel.provenance.get("sha256"),
                layouts[tuple(places[id(kernel.layout)])],
            ]
            for kernel in kernels
        ],
    }


def _order(value: Any) -> Any:
    if isinstance(value, Field):
        return (1, value.bit_offset, value.bit_size, value.bitfield, value.signed)
    return (0,) if value is None else (1, value)


def _short(value: Any) -> str:
    """What fits into a picture: the byte offset; of a bit field, byte and bit."""
    if isinstance(value, Field):
        return f"{value.offset}:{value.bit_offset % 8}" if value.bitfield else str(value.offset)
    return "absent" if value is None else str(value)
