"""Every program of every patched image, run on the memory of every kernel of the published table.

The programs are patched with the table's offsets; the memory is laid out by what the archive has of the same kernel's
types, by name. Kernels of one architecture whose wanted fields lie alike are one kernel here.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from sockpid.arch import ARCHES, Arch
from sockpid.image.image import Image
from sockpid.table import table
from sockpid.table.layout import Layout, Struct
from sockpid_gen.archive import archive
from tests.bpf import laid_out
from tests.bpf.every_program import Kind, play
from tests.unit.image.test_relocate import images

ROOT = Path(__file__).parents[3]


def image_of(arch: Arch) -> Image:
    return images()["big" if arch.byte_order == "big" else "little"]


def _key(layout: Layout) -> tuple[object, ...]:
    """Equal where every field lies at the same place, whatever its sign."""
    return tuple(
        (name, row if row is None else tuple((path, field and field[:3]) for path, field in sorted(row.fields.items())))
        for name, row in sorted(layout.items())
        if row is None or isinstance(row, Struct)
    )


def _archived(arch: str, series: str) -> dict[tuple[str | None, str], Any]:
    """Types of the archive's kernels, by build-id and release."""
    kernels = archive.read(archive.path_of(ROOT / "archive", arch, series))
    return {(kernel["build_id"], kernel["release"]): kernel["types"] for kernel in kernels}


@functools.cache
def kinds() -> tuple[tuple[Kind, ...], int, int]:
    """All kinds; the number of kernels that the table has, and of those that the archive has too."""
    found: dict[tuple[object, ...], tuple[Arch, Layout, list[str], Layout]] = {}
    kernels = archived = 0
    for path in sorted((ROOT / "offsets").glob("*/*.json")):
        shard = table.parse_shard(path.read_bytes(), path.name)
        arch, types = ARCHES[shard.arch], _archived(shard.arch, shard.series)
        wanted = image_of(arch).wanted(arch)
        for entry in shard.entries:
            kernels += 1
            layout = {name: row for name, row in shard.layout(entry).items() if name in wanted}
            rows = types.get((entry.build_id, entry.release))
            archived += rows is not None
            memory = None if rows is None else laid_out.layout(rows, wanted, arch.pointer_size)
            key = shard.arch, _key(layout), memory and _key(memory)
            found.setdefault(key, (arch, layout, [], memory or {}))[2].append(entry.release)
    return (
        tuple(
            Kind(image_of(arch), arch, layout, tuple(names), memory) for arch, layout, names, memory in found.values()
        ),
        kernels,
        archived,
    )


def _ids() -> list[str]:
    return [f"{kind.arch.name}-{kind.releases[-1]}-and-{len(kind.releases) - 1}-more" for kind in kinds()[0]]


def test_every_kernel_of_the_table_is_there() -> None:
    """None is left out: not for want of an archive, and not for a field that only the table has."""
    made, kernels, archived = kinds()
    assert sum(len(kind.releases) for kind in made) == kernels == archived
    assert kernels > 640
    assert {kind.arch.name for kind in made} == set(ARCHES)
    print(f"{kernels} kernels, {len(made)} layouts")


@pytest.mark.parametrize("number", range(len(kinds()[0])), ids=_ids())
def test_every_program_finds_what_it_looks_for(number: int) -> None:
    play(kinds()[0][number])
