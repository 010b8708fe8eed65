"""Makes the offset table out of the archive: the fields that the images read today, for every kernel ever read."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Tuple

from sockpid.image import hooks
from sockpid.table import table, writer
from sockpid.table.layout import Layout
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.table import shard

from . import archive


class Refreshed(NamedTuple):
    """One shard after a refresh.

    archived: kernels out of the archive. others: kernels that the archive does not have; they stay as they were.
    lacking: types that an image reads and the archive does not have, each with the files that have to be read again.
    """

    path: Path
    changed: bool
    archived: int
    others: int
    lacking: Dict[str, List[str]]


def refresh(archived: Path, offsets: Path) -> List[Refreshed]:
    """Brings the shards below `offsets` up to date with an archive; each is replaced whole or not at all.

    A kernel that the archive does not have keeps its entry, and whatever says that this was concluded. Raises
    TableError, SchemaError for damaged files, ConflictError if a shard and the archive contradict each other about a
    kernel: in a field, the number of a function, or who it is.
    """
    results: List[Refreshed] = []
    for (arch, series), kernels in _groups(archived):
        path = offsets / arch / f"{series}.json"
        before = shard.read(path, arch, series)
        document = shard.empty(arch, series)
        lacking: Dict[str, List[str]] = {}
        entries: Dict[Tuple[str, ...], KernelEntry] = {}
        for kernel, (layout, missing) in zip(kernels, _layouts(arch, kernels), strict=True):
            entry = entry_of(kernel, layout)
            entries[entry.key] = entry
            for name in missing:
                lacking.setdefault(name, []).append(kernel["sources"][0][0])
        others = 0
        known = table.parse_shard(shard.canonical(before), str(path))
        for one in known.entries:
            entry = shard.kernel_of(known, one, known.layout(one))
            if entry.key in entries:
                archived_entry = entries[entry.key]
                entry.agree(archived_entry, str(path))
                if archived_entry.btf_ids is None:
                    entries[entry.key] = archived_entry._replace(btf_ids=entry.btf_ids)
            else:
                others += 1
                entries[entry.key] = entry
        for entry in entries.values():
            _put(document, entry)
        results.append(Refreshed(path, shard.save(path, document), len(kernels), others, lacking))
    return results


def entry_of(kernel: archive.Kernel, layout: Layout) -> KernelEntry:
    """The table's entry of an archived kernel."""
    (source, sha256), *also = kernel["sources"]
    provenance = {"kind": kernel["kind"], "source": source, "sha256": sha256, "tools": kernel["tools"]}
    if also:
        provenance["also"] = also
    functions = kernel["functions"]
    return KernelEntry(
        kernel["arch"],
        kernel["build_id"],
        kernel["release"],
        kernel["banner"],
        kernel["distribution"],
        functions and {name: number for name, number in functions.items() if name in hooks.functions()},
        provenance,
        layout,
    )


def _groups(archived: Path) -> Iterable[Tuple[Tuple[str, str], List[archive.Kernel]]]:
    for path, kernels in archive.read_all(archived).items():
        yield (path.parent.name, path.name[: -len(".json.xz")]), kernels


def _layouts(arch: str, kernels: List[archive.Kernel]) -> Iterable[Tuple[Layout, List[str]]]:
    """The wanted fields of each kernel. Kernels with equal types share one object, which is looked up once."""
    known: Dict[int, Tuple[Layout, List[str]]] = {}
    for kernel in kernels:
        types = kernel["types"]
        if id(types) not in known:
            known[id(types)] = archive.layout_of(types, arch)
        yield known[id(types)]


def _put(document: writer.Document, entry: KernelEntry) -> None:
    fields = entry._asdict()
    del fields["arch"], fields["layout"]
    writer.add(document, fields, entry.layout)
