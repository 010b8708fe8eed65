"""Whatever describes one kernel must say the same: BTF, DWARF, the table, and the kernel itself while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from sockpid.btf.btf import Btf
from sockpid.errors import SourceError, UsageError
from sockpid.table import table as reader
from sockpid.table.layout import Enum, Field, Layout, Struct, Wanted
from sockpid_gen.btf import pahole
from sockpid_gen.extraction import extraction
from sockpid_gen.extraction.difference import compare, facts, words
from sockpid_gen.extraction.entry import KernelEntry, entry_of
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.files.stream import Tick
from sockpid_gen.kernel import source
from sockpid_gen.table.table import Table


class Witness(NamedTuple):
    """One description of one kernel. name: for messages. kind: "btf", "dwarf", "table" or "live"."""

    name: str
    kind: str
    kernel: KernelEntry


class Disagreement(NamedTuple):
    """Two witnesses contradict each other in a field (named as sockpid_gen.difference does), or in the banner."""

    field: str
    value: Any
    source: str
    other_value: Any
    other_source: str

    def __str__(self) -> str:
        return f"{self.field}: {words(self.value)} ({self.source}); {words(self.other_value)} ({self.other_source})"


class Verdict(NamedTuple):
    """What came of one kernel. fields: how many types, fields and enumerators all witnesses speak of.

    independent: at least two witnesses do not go back to the same kind of debug information.
    """

    kernel: KernelEntry
    witnesses: Tuple[str, ...]
    fields: int
    independent: bool
    disagreements: Tuple[Disagreement, ...]


def verify(witnesses: Sequence[Witness]) -> Verdict:
    """Holds descriptions of one kernel against the first of them. Raises UsageError if there is but one."""
    first, *others = witnesses
    origins = {(w.kind, w.kernel.provenance.get("source")) for w in witnesses}
    if len(origins) < 2:
        raise UsageError(
            f"{first.kernel.identity} has no description but {first.name}: nothing to hold it against "
            "(the table does not have it; give its debug package, vmlinux or BTF as well)"
        )
    disagreements: List[Disagreement] = []
    for other in others:
        if other.kernel.banner != first.kernel.banner:
            banners = repr(first.kernel.banner), repr(other.kernel.banner)
            disagreements.append(Disagreement("banner", banners[0], first.name, banners[1], other.name))
        disagreements += [
            Disagreement(field, value, first.name, other_value, other.name)
            for field, value, other_value in compare(first.kernel.layout, other.kernel.layout)
        ]
    common: FrozenSet[str] = frozenset.intersection(*(facts(w.kernel.layout) for w in witnesses))
    kinds = {str(w.kernel.provenance.get("kind")) if w.kind == "table" else w.kind for w in witnesses}
    names = tuple(dict.fromkeys(w.name for w in witnesses))
    return Verdict(first.kernel, names, len(common), len(kinds) > 1, tuple(disagreements))


def witnesses(
    path: Path, given: source.Given = source.NOTHING_GIVEN, table: Optional[Table] = None, tick: Tick = lambda _: None
) -> List[Witness]:
    """All descriptions of a kernel that a source holds, each by each of its readers; before them its entry in `table`.

    Looked for is what the images read, and all that the entry has. Raises as sockpid_gen.extract() does.
    """
    with source.open_source(path, given, tick) as kernel:
        wanted = wanted_fields(kernel.arch)
        entries = (
            [] if table is None else _find(table, kernel.arch.name, kernel.release, kernel.banner, kernel.build_id)
        )
        known = [_table_witness(entry) for entry in entries]
        for witness in known:
            wanted = _both(wanted, wanted_of(witness.kernel.layout))
        found: List[Witness] = []
        for reader_name, layout in extraction.answers(kernel, wanted):
            kind = reader_name.partition(" ")[0].lower()
            read = extraction.Extraction(layout, None, kind, {})
            found.append(Witness(f"{reader_name}, in {kernel.file}", kind, entry_of(kernel, read)))
        return known + found


def verify_all(found: Iterable[Witness]) -> List[Verdict]:
    """Verdicts on all kernels that the witnesses speak of, one each. Raises UsageError as verify() does."""
    groups: List[List[Witness]] = []
    for witness in found:
        group = next((g for g in groups if g[0].kernel.is_same_kernel(witness.kernel)), None)
        if group is None:
            groups.append([witness])
        elif witness.name not in {w.name for w in group}:
            group.append(witness)
    return [verify(group) for group in groups]


def verify_dwarf(entry: KernelEntry, path: Path) -> Verdict:
    """A table's entry against the DWARF of a debug package or vmlinux of the same build.

    An entry that was itself made of DWARF is also held against what pahole makes of it, where there is pahole. Raises
    SourceError if the file has no DWARF or is another kernel, and as sockpid_gen.extract() does.
    """
    with source.open_source(path) as kernel:
        if kernel.dwarf is None:
            raise SourceError(f"{path.name}: no DWARF in it")
        wanted = wanted_of(entry.layout)
        found = [
            (f"{answer.reader}, in {kernel.file}", "dwarf", answer.layout)
            for answer in extraction.answers(kernel._replace(btf=None), wanted)
        ]
        if entry.provenance.get("kind") == "dwarf" and pahole.version():
            btf = Btf(pahole.encode(kernel.dwarf))
            name = f"DWARF read by pahole {pahole.version()}, in {kernel.file}"
            found.append((name, "pahole", btf.extract(wanted, kernel.arch.pointer_size)))
        held = [_table_witness(entry)]
        for name, kind, layout in found:
            read = entry_of(kernel, extraction.Extraction(layout, None, kind, {}))
            if not entry.is_same_kernel(read):
                raise SourceError(f"{path.name} is {read.identity}, not {entry.identity}")
            held.append(Witness(name, kind, read))
        return verify(held)


def verify_selftest(table: Table, report: Mapping[str, Any]) -> Verdict:
    """A table's entry against what `sockpid selftest --json` printed on a live kernel.

    Two things can disagree: the offset that was used there, and the value that came back through it. Raises UsageError
    if `report` is no such document, or of a kernel that the table does not have.
    """
    try:
        identity = report["arch"], report["release"], report["banner"], report["build_id"]
        observed = {str(name): dict(told) for name, told in report["fields"].items()}
        places = {name: Field(**told["place"]) for name, told in observed.items()}
        failed = {name: told["wrong"] for name, told in observed.items() if not told["ok"]}
        unexplained = {line for f, r in report["families"].items() for line in (f"{f}: {m}" for m in r["mismatches"])}
        source_name = f"live kernel, offsets from {report['offsets_source']}"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"this is not what `sockpid selftest --json` prints ({error!r})") from None
    arch, release, banner, build_id = identity
    entry = next(iter(_find(table, arch, release, banner, build_id)), None)
    if entry is None:
        raise UsageError(f"the table has no kernel {release} ({arch}, build-id {build_id}); add it from its package")
    rows: Dict[str, Dict[str, Optional[Field]]] = {}
    for name, place in places.items():
        type_name, _, path = name.partition(".")
        rows.setdefault(type_name, {})[path] = place
    live: Layout = {name: Struct(name, _size(entry.layout, name), paths) for name, paths in rows.items()}
    provenance = {"kind": "live", "source": report["offsets_source"], "sha256": None, "tools": {}}
    kernel = entry._replace(layout=live, provenance=provenance)
    verdict = verify([_table_witness(entry), Witness(source_name, "live", kernel)])
    wrong = list(verdict.disagreements)
    table_name = _table_witness(entry).name
    for name, lines in failed.items():
        value = _value(entry.layout, name)
        wrong.append(Disagreement(name, value, table_name, f"read back wrong: {'; '.join(lines)}", source_name))
        unexplained -= set(lines)
    wrong += [Disagreement("self-check", "right", table_name, line, source_name) for line in sorted(unexplained)]
    return verdict._replace(fields=len(observed), disagreements=tuple(wrong))


def wanted_of(layout: Layout) -> Wanted:
    """What was looked for when a layout was made."""
    return {
        name: frozenset(() if row is None else row.values if isinstance(row, Enum) else row.fields)
        for name, row in layout.items()
    }


def _both(one: Wanted, other: Wanted) -> Wanted:
    nothing: FrozenSet[str] = frozenset()
    return {name: one.get(name, nothing) | other.get(name, nothing) for name in {**one, **other}}


def _table_witness(entry: KernelEntry) -> Witness:
    return Witness(f"table, from {entry.cited}", "table", entry)


def _find(table: Table, arch: str, release: str, banner: str, build_id: Optional[str]) -> Iterable[KernelEntry]:
    for entry in table.of(arch, reader.series_of(release)):
        same = (entry.release, entry.banner) == (release, banner.rstrip())
        if entry.build_id == build_id if None not in (entry.build_id, build_id) else same:
            yield entry


def _size(layout: Layout, name: str) -> int:
    row = layout.get(name)
    return 0 if row is None else row.size


def _value(layout: Layout, field: str) -> Any:
    name, _, path = field.partition(".")
    row = layout.get(name)
    return row.fields.get(path) if isinstance(row, Struct) else None
