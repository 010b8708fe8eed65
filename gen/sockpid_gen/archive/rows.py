"""Whole structs as data: all members of a type and of all that lies in it. From them any field can be answered later.

A row is JSON: `{"name": "struct sock", "size": 776, "members": [[name, bit offset, width, type], ...]}`. The width is
that of a bit field, else 0; the name of an anonymous member is "". A type is

* "u4", "i8": an integer, boolean, enum or float of so many bytes, unsigned or signed; "p": a pointer;
* "struct NAME", "union NAME": another row, by name;
* {"size": ..., "members": ...}: a struct without a name, or with one that several types share; "union": true if it is
  one;
* [N, type]: an array, of 0 elements if it is flexible. Arrays of arrays are flattened, as pahole does it for BTF.

A row of an enum has "values" instead of members.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from sockpid.errors import TableError
from sockpid.table.layout import Enum, Field, Layout, Struct, Type, Wanted, parse_path

Row = Dict[str, Any]
Rows = Dict[str, Optional[Row]]
"""Rows by type name. None: looked for, and the kernel has none of that name."""

_INVENTED = "__UNIQUE_ID_"
"""How names start that the preprocessor made (__UNIQUE_ID() in include/linux/compiler.h). The number in them differs
from one object file to the next, so one type has many of them, and no code says any. Red Hat's kernels keep former
members under such names."""


def members(row: Optional[Row]) -> Iterator[str]:
    """Names of the members of a row as C code says them, through anonymous ones; of an enum, its enumerators."""
    if row is None:
        return
    yield from row.get("values", ())
    for name, _, _, kind in row.get("members", ()):
        if name and not name.startswith(_INVENTED):
            yield name
        elif not name and isinstance(kind, dict):
            yield from members(kind)


class Archived:
    """The types of one kernel out of its rows. Answers as a Btf does."""

    def __init__(self, rows: Mapping[str, Optional[Row]]) -> None:
        self._rows = rows

    def extract(self, wanted: Wanted, pointer_size: int) -> Layout:
        """Where the wanted fields lie; as Btf.extract. Raises TableError for a type that was not archived."""
        layout: Dict[str, Optional[Type]] = {}
        for name, paths in wanted.items():
            row = self._row(name)
            if row is None:
                layout[name] = None
            elif "values" in row:
                layout[name] = Enum(name, row["size"], {path: row["values"].get(path) for path in paths})
            else:
                fields = {path: self._field(row, path, pointer_size) for path in paths}
                layout[name] = Struct(name, row["size"], fields)
        return layout

    def _row(self, name: str) -> Optional[Row]:
        if name not in self._rows:
            raise TableError(f"the archive does not have {name}")
        return self._rows[name]

    def _field(self, kind: Any, path: str, pointer_size: int) -> Optional[Field]:
        bit_offset = width = 0
        for step in parse_path(path):
            if isinstance(step, int):
                if not isinstance(kind, list) or step >= kind[0] > 0:
                    return None
                kind, width = kind[1], 0
                bit_offset += step * self._bits(kind, pointer_size)
            else:
                member = self._member(kind, step)
                if member is None:
                    return None
                kind, offset, width = member
                bit_offset += offset
        signed = isinstance(kind, str) and kind[0] == "i"
        return Field(bit_offset, width or self._bits(kind, pointer_size), width > 0, signed)

    def _member(self, kind: Any, wanted: str) -> Optional[Tuple[Any, int, int]]:
        """Type, bit offset and width of a member, found through anonymous ones."""
        row = kind if isinstance(kind, dict) else self._row(kind) if " " in kind else None
        for name, bit_offset, width, inner in row["members"] if row else ():
            if name == wanted:
                return inner, bit_offset, width
            # What has no name of its own in the struct may have one as a type: struct slock_owned in socket_lock_t.
            if not name and (isinstance(inner, dict) or (isinstance(inner, str) and " " in inner)):
                found = self._member(inner, wanted)
                if found is not None:
                    return found[0], bit_offset + found[1], found[2]
        return None

    def _bits(self, kind: Any, pointer_size: int) -> int:
        if isinstance(kind, list):
            return int(kind[0]) and int(kind[0]) * self._bits(kind[1], pointer_size)
        if kind == "p":
            return pointer_size * 8
        row = kind if isinstance(kind, dict) else self._row(kind) if " " in kind else None
        return 8 * int(row["size"] if row else kind[1:])
