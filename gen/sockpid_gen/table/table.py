"""A whole offset table in memory: every shard below a directory, kernels found, added, merged, written."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Dict, Iterator, List, Tuple, Union

from sockpid.errors import ConflictError, TableError, UsageError
from sockpid.table import table
from sockpid.table.layout import Layout
from sockpid_gen.extraction.difference import facts
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.kernel.release import sort_key

from . import shard

Key = Tuple[str, str]
"""Architecture and series: what a shard is for."""

_SHOWN = 8


class Table:
    """Kernels by architecture and series. Nothing is read or written but by load() and save()."""

    def __init__(self) -> None:
        self._documents: Dict[Key, shard.Document] = {}
        self._parsed: Dict[Key, table.Shard] = {}
        self._layouts: Dict[Tuple[str, str, str], Layout] = {}
        self._saved: Dict[Key, Path] = {}  # files that have, as far as we know, what the table has

    @classmethod
    def load(cls, directory: Union[str, os.PathLike[str]], *, create: bool = False) -> Table:
        """The shards below a directory, <arch>/<series>.json.

        create: none at all is an empty table. Raises TableError if there is none (and not `create`), or if one is
        damaged or lies in a place that is not its own; SchemaError.
        """
        loaded = cls()
        for path in sorted(Path(directory).glob("*/*.json")):
            arch, series = path.parent.name, path.stem
            loaded._documents[arch, series] = shard.read(path, arch, series)
            loaded._saved[arch, series] = path
        if not loaded._documents and not create:
            raise TableError(
                f"{directory} has no offset tables; make one with `sockpid-gen add`, or give --offsets DIR"
            )
        return loaded

    def save(self, directory: Union[str, os.PathLike[str]]) -> List[Path]:
        """Writes every shard that differs from its file, each whole or not at all; returns these files.

        Shards of the directory that the table does not have stay. Raises TableError if one is not as its schema says.
        """
        changed: List[Path] = []
        for key, document in sorted(self._documents.items()):
            path = Path(directory) / key[0] / f"{key[1]}.json"
            if self._saved.get(key) != path and shard.save(path, document):
                changed.append(path)
            self._saved[key] = path
        return changed

    def add(self, entry: KernelEntry) -> bool:
        """Adds a kernel, or brings its entry up to date. False if that changes nothing.

        Raises ConflictError, citing both sources, if the kernel is there with other offsets.
        """
        key = entry.arch, table.series_of(entry.release)
        for other in self._same_build_elsewhere(entry, key):
            message = f"{entry.identity}, {entry.cited}, has the build-id of {other.identity}, {other.cited}"
            raise ConflictError(message, [message])
        document = self._documents.get(key) or shard.empty(*key)
        changed = shard.merge(document, entry, f"{'/'.join(key)}.json")
        if changed:
            self._documents[key] = document
            self._parsed.pop(key, None)
            self._saved.pop(key, None)
        return changed

    def merge(self, other: Table) -> int:
        """Takes over every kernel of another table; returns how many entries that changed.

        Of two entries for one kernel that agree, the one that was measured stays, of two that were the one that speaks
        of more fields; what was concluded or found by trying stays marked as that. Raises ConflictError with
        every kernel on which the two tables differ, each with the first field and both sources; then nothing is
        changed.
        """
        merged = copy.deepcopy(self)
        conflicts: List[str] = []
        changed = 0
        for entry in other:
            try:
                changed += merged._take(entry)
            except ConflictError as error:
                conflicts += error.conflicts
        if conflicts:
            raise ConflictError(
                f"the tables differ on {len(conflicts)} kernels:\n  " + "\n  ".join(conflicts), conflicts
            )
        self._documents, self._parsed = merged._documents, merged._parsed
        self._layouts, self._saved = merged._layouts, merged._saved
        return changed

    def _take(self, entry: KernelEntry) -> bool:
        known = next((k for k in self.of(entry.arch, table.series_of(entry.release)) if k.key == entry.key), None)
        if known is not None and known.measured == entry.measured:
            ours, theirs = facts(known.layout), facts(entry.layout)
            if theirs <= ours:
                known.agree(entry, f"{entry.arch}/{table.series_of(entry.release)}.json")
                return False
            if not ours < theirs:
                message = (
                    f"{entry.identity}: {known.cited} lacks {min(theirs - ours)}, {entry.cited} lacks "
                    f"{min(ours - theirs)}; add it again from its source"
                )
                raise ConflictError(message, [message])
        return self.add(entry)

    def shards(self) -> List[table.Shard]:
        """Every shard, decoded, by architecture and series."""
        return [self.shard(*key) for key in sorted(self._documents, key=lambda key: (key[0], sort_key(key[1])))]

    def shard(self, arch: str, series: str) -> table.Shard:
        """One shard, decoded. Raises KeyError if the table has none for these."""
        key = arch, series
        if key not in self._parsed:
            content = shard.canonical(self._documents[key])
            self._parsed[key] = table.parse_shard(content, f"{arch}/{series}.json")
        return self._parsed[key]

    def __iter__(self) -> Iterator[KernelEntry]:
        """Every kernel, by architecture, then from old to new."""
        for s in self.shards():
            yield from self.of(s.arch, s.series)

    def __len__(self) -> int:
        return sum(len(document["kernels"]) for document in self._documents.values())

    def of(self, arch: str, series: str) -> Iterator[KernelEntry]:
        """The kernels of one shard, from old to new; none if there is no such shard."""
        if (arch, series) not in self._documents:
            return
        s = self.shard(arch, series)
        for e in sorted(s.entries, key=lambda e: (sort_key(e.release), sort_key(e.banner or ""), e.build_id or "")):
            key = arch, series, e.layout
            if key not in self._layouts:
                self._layouts[key] = s.layout(e)
            yield shard.kernel_of(s, e, self._layouts[key])

    def find(self, kernel: str) -> KernelEntry:
        """The kernel that a person means: [ARCH/]RELEASE, or the start of a build-id (four digits or more).

        Raises UsageError if there is none, or several.
        """
        arch, _, text = kernel.rpartition("/")
        found = [
            entry
            for entry in self
            if arch in ("", entry.arch)
            and (entry.release == text or (len(text) >= 4 and (entry.build_id or "").startswith(text.lower())))
        ]
        if not found:
            near = [entry for entry in self if arch in ("", entry.arch) and entry.release.startswith(text)]
            hint = f"; it has {_several(near)}" if near else " (`sockpid-gen list` shows what it has)"
            raise UsageError(f"the table has no kernel {kernel}{hint}")
        if len(found) > 1:
            raise UsageError(f"{kernel} is several kernels: {_several(found)}; give the start of a build-id")
        return found[0]

    def locate(self, kernel: KernelEntry) -> Tuple[table.Shard, table.Entry]:
        """Shard and entry of one of the table's kernels, where the ids of its rows are. Raises KeyError for another."""
        s = self.shard(kernel.arch, table.series_of(kernel.release))
        for entry in s.entries:
            if (entry.build_id, entry.release, entry.banner) == (kernel.build_id, kernel.release, kernel.banner):
                return s, entry
        raise KeyError(kernel.identity)

    def _same_build_elsewhere(self, entry: KernelEntry, key: Key) -> Iterator[KernelEntry]:
        if entry.build_id is None:
            return
        for other, document in self._documents.items():
            if other != key and any(k["build_id"] == entry.build_id for k in document["kernels"]):
                yield from (k for k in self.of(*other) if k.build_id == entry.build_id)


def _several(kernels: List[KernelEntry]) -> str:
    shown = ", ".join(kernel.identity for kernel in kernels[:_SHOWN])
    return shown + (f" and {len(kernels) - _SHOWN} more" if len(kernels) > _SHOWN else "")
