"""What a table covers: its layouts and how many kernels have each, and where each field ever moves."""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from sockpid.table.layout import Enum, Field, Layout
from sockpid.table.table import series_of
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.kernel.release import flavour
from sockpid_gen.table.table import Table


class Shard(NamedTuple):
    """One file of the table."""

    arch: str
    series: str
    kernels: int
    layouts: int


class LayoutRow(NamedTuple):
    """Kernels of one architecture that have one layout, from old to new."""

    id: str
    arch: str
    kernels: Tuple[KernelEntry, ...]


class Step(NamedTuple):
    """Two kernels of one architecture and flavour, next to each other in age, between which a field moves."""

    arch: str
    flavour: str
    before: KernelEntry
    after: KernelEntry
    value: Any
    other_value: Any

    @property
    def within_series(self) -> bool:
        """An update of the same series moved it."""
        return series_of(self.before.release) == series_of(self.after.release)


class FieldRow(NamedTuple):
    """One field. values: how many kernels have each; steps: where it moves."""

    field: str
    values: Dict[Any, int]
    steps: Tuple[Step, ...]


class Cover(NamedTuple):
    """All that is known of a table as a whole. structs: how many different rows each type has."""

    kernels: int
    shards: Tuple[Shard, ...]
    layouts: Tuple[LayoutRow, ...]
    structs: Dict[str, int]
    fields: Tuple[FieldRow, ...]


def values(layout: Layout) -> Iterator[Tuple[str, Any]]:
    """Every field and enumerator of a layout with its value: a Field, a number, or None where it is absent."""
    for name, row in sorted(layout.items()):
        if row is None:
            yield name, None
            continue
        members: Dict[str, Any] = dict(row.values if isinstance(row, Enum) else row.fields)
        yield from ((f"{name}.{path}", members[path]) for path in sorted(members))


def value_of(layout: Layout, field: str) -> Optional[Any]:
    """A field's value; also None if its type is absent. Raises KeyError if the layout does not speak of it."""
    name, _, path = field.partition(".")
    row = layout[name]
    return None if row is None else (row.values if isinstance(row, Enum) else row.fields)[path]


def cover(table: Table) -> Cover:
    """Goes through every kernel of a table."""
    kernels = list(table)
    ids = {id(kernel): table.locate(kernel)[1].layout for kernel in kernels}
    by_layout: Dict[Tuple[str, str], List[KernelEntry]] = {}
    lines: Dict[Tuple[str, str], List[KernelEntry]] = {}
    structs: Dict[str, set[str]] = {}
    for shard in table.shards():
        for types in shard.layouts.values():
            for name, row in types.items():
                if row is not None:
                    structs.setdefault(name, set()).add(row)
    for kernel in kernels:
        by_layout.setdefault((ids[id(kernel)], kernel.arch), []).append(kernel)
        lines.setdefault((kernel.arch, flavour(kernel.release)), []).append(kernel)
    layouts = [LayoutRow(key, arch, tuple(found)) for (key, arch), found in by_layout.items()]
    return Cover(
        len(kernels),
        tuple(Shard(s.arch, s.series, len(s.entries), len(s.layouts)) for s in table.shards()),
        tuple(sorted(layouts, key=lambda row: -len(row.kernels))),
        {name: len(rows) for name, rows in sorted(structs.items())},
        tuple(_fields(kernels, lines)),
    )


def _fields(kernels: List[KernelEntry], lines: Dict[Tuple[str, str], List[KernelEntry]]) -> Iterator[FieldRow]:
    # Kernels of one layout share the object that holds it: each is looked through once.
    known: Dict[int, Dict[str, Any]] = {}
    for kernel in kernels:
        if id(kernel.layout) not in known:
            known[id(kernel.layout)] = _leaves(kernel.layout)
    counts: Dict[str, Counter[Any]] = {}
    for key, number in Counter(id(kernel.layout) for kernel in kernels).items():
        for field, value in known[key].items():
            counts.setdefault(field, Counter())[value] += number
    steps: Dict[str, List[Step]] = {}
    for (arch, name), line in sorted(lines.items()):
        for before, after in zip(line, line[1:]):
            if before.layout is after.layout:
                continue
            old, new = known[id(before.layout)], known[id(after.layout)]
            for field in old.keys() & new.keys():
                if old[field] != new[field]:
                    steps.setdefault(field, []).append(Step(arch, name, before, after, old[field], new[field]))
    for field in sorted(counts):
        yield FieldRow(field, dict(counts[field]), tuple(steps.get(field, ())))


def _leaves(layout: Layout) -> Dict[str, Any]:
    return dict(values(layout))


def plain(value: Any) -> Any:
    """A value as JSON has it in a table: {"offset": 540, "size": 2}, a number, or null."""
    if not isinstance(value, Field):
        return value
    if value.bitfield:
        place: Dict[str, Any] = {"bit_offset": value.bit_offset, "bit_size": value.bit_size}
    else:
        place = {"offset": value.offset, "size": value.size}
    return {**place, "signed": True} if value.signed else place
