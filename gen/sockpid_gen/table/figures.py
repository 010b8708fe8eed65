"""Figures of a published table, as a page: `python -m sockpid_gen.table.figures > docs/table.md`."""

from __future__ import annotations

import datetime
import lzma
import sys
from collections import Counter
from pathlib import Path
from typing import List, Set

from sockpid.table import table

from . import check


def page(offsets: Path, archive: Path, day: datetime.date) -> str:
    """The page, in Markdown. Raises TableError if there is no table, or one that cannot be read."""
    paths = sorted(offsets.glob("*/*.json"))
    shards = [table.parse_shard(path.read_bytes(), str(path)) for path in paths]
    problems = sum(len(checked.problems) for checked in check.check(offsets))
    content = b"".join(path.read_bytes() for path in paths)
    packed = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    archived = sum(path.stat().st_size for path in archive.glob("*/*.json.xz"))
    kernels = sum(len(shard.entries) for shard in shards)
    layouts: Set[str] = {row for shard in shards for row in shard.layouts}
    structs: Set[str] = {row for shard in shards for row in shard.structs}
    largest = max(zip(paths, shards, strict=True), key=lambda pair: len(pair[1].entries))
    without = sum(1 for shard in shards for entry in shard.entries if entry.build_id is None)
    kinds = Counter(str(entry.provenance["kind"]) for shard in shards for entry in shard.entries)
    lines: List[str] = [
        "# The published table in figures",
        "",
        f"Made by `make table-figures` on {day.isoformat()}. `sockpid-gen check` found {problems or 'no'} problems.",
        "",
        f"* {kernels} kernels ({kinds['btf']} read from BTF, {kinds['dwarf']} from DWARF; {without} have no build-id)",
        f"* {len(layouts)} layouts out of {len(structs)} rows of structs",
        f"* {len(content):,} bytes of JSON in {len(shards)} shards; all of them one after the other, compressed with "
        f"`xz -9e`: {packed:,} bytes, {packed / kernels:.0f} a kernel",
        f"* archive of whole structs: {archived:,} bytes, {archived / kernels:,.0f} a kernel",
        f"* the shard with most kernels: {largest[0].parent.name}/{largest[0].name}, {len(largest[1].entries)}, "
        f"{largest[0].stat().st_size:,} bytes",
        "",
        "| architecture | kernels | layouts | series |",
        "|---|---|---|---|",
    ]
    for arch in sorted({shard.arch for shard in shards}):
        own = [shard for shard in shards if shard.arch == arch]
        series = ", ".join(f"{shard.series} ({len(shard.entries)})" for shard in sorted(own, key=_by_series))
        rows = {row for shard in own for row in shard.layouts}
        lines.append(f"| {arch} | {sum(len(shard.entries) for shard in own)} | {len(rows)} | {series} |")
    return "\n".join(lines) + "\n"


def _by_series(shard: table.Shard) -> List[int]:
    return [int(part) for part in shard.series.split(".")]


if __name__ == "__main__":
    sys.stdout.write(page(Path("offsets"), Path("archive"), datetime.date.today()))
