"""The figures in docs/bench-gen.md, out of docs/bench/gen.json; what stands around them is written by hand."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- measured -->\n", "<!-- end of what was measured -->\n"

Json = Dict[str, Any]


def targets(document: Json) -> List[Tuple[str, float, float, str]]:
    """What, measured, at most, unit."""
    rows = document["btf"]["rows"]
    found = [
        (
            "BTF: the reader, warm, as a part of bpftool and pahole together",
            rows["reader, warm"]["share"],
            0.10,
            "",
        ),
        ("BTF: a process from start to end", rows["a process of its own"]["cpu_ms"], 40, "ms"),
        ("BTF: the agreement of drgn, on top", rows["the agreement of drgn, on top"]["cpu_ms"], 60, "ms"),
    ]
    for version, packages in sorted(document.get("packages", {}).items()):
        for which, rows in (("with BTF", typed(packages["rows"])), ("of all", list(packages["rows"].values()))):
            name = f"package to entry, the mean of {len(rows)} kernels {which}, with liblzma {version}"
            found.append((name, statistics.mean(row["cpu_ms"] for row in rows), 400, "ms"))
    if "dwarf" in document:
        ours = document["dwarf"]["rows"]["sockpid-gen"]
        found.append(("DWARF: CPU time as a part of pahole's", ours["share"], 0.10, ""))
        found.append(("DWARF: peak memory as a part of pahole's", ours["memory share"], 0.10, ""))
    return found


def typed(rows: Json) -> List[Json]:
    """Of a sample, the kernels that have their types in their packages: not those read from debug packages."""
    return [row for row in rows.values() if row["form"] != "debug"]


def groups(rows: Json) -> Iterator[Tuple[str, List[Json]]]:
    """A sample by architecture and by how kernels are packed; then the sums."""
    kinds: Dict[str, List[Json]] = {}
    for row in rows.values():
        what = {"raw": "raw image", "debug": "DWARF of a debug package"}.get(row["form"], row["form"])
        kinds.setdefault(f"{row['arch']}, {what}", []).append(row)
    yield from sorted(kinds.items())
    yield "all with BTF", typed(rows)
    yield "all", list(rows.values())


def spread(rows: List[Json]) -> str:
    """Count; mean with its standard error, median, and what a tenth needs less and a tenth more than; parts."""
    times = sorted(row["cpu_ms"] for row in rows)
    error = f" ± {statistics.stdev(times) / len(times) ** 0.5:.0f}" if len(times) > 1 else ""
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    parts = [statistics.mean(row[part] for row in rows) for part in ("unpacking", "with SHA-256")]
    return (
        f"{len(rows)} | {statistics.mean(row['mib'] for row in rows):.0f} | {statistics.mean(times):.0f}{error} | "
        f"{statistics.median(times):.0f} | {low:.0f} | {high:.0f} | {parts[0]:.2f} | {parts[1]:.2f}"
    )


def figures(document: Json) -> str:
    """Targets first, then all that was measured."""
    lines = ["| target | at most | measured | ratio | |", "|---|---|---|---|---|"]
    for what, value, most, unit in targets(document):
        digits = 0 if unit else 3
        verdict = "met" if value <= most else "**not met**"
        bound = f"{most:.0f} {unit}" if unit else f"{most:.2f}"
        lines.append(f"| {what} | {bound} | {value:.{digits}f} {unit} | {value / most:.2f} | {verdict} |")
    found = document["btf"]
    lines += [
        "",
        f"| BTF of {found['bytes'] / 1e6:.1f} MB, {found['types']:,} types, {found['wanted fields']} fields of "
        f"{found['wanted types']} types | CPU ms | MiB | of bpftool + pahole |",
        "|---|---|---|---|",
        *_rows(found["rows"], "cpu_ms", "memory_mib", "share"),
        "",
        said(found),
    ]
    for version, packages in sorted(document.get("packages", {}).items()):
        lines += [
            "",
            f"| package to entry, warm, liblzma {version} | kernels | MiB | CPU ms, mean | median | 10 % | 90 % "
            "| of it unpacking | with SHA-256 |",
            "|---|---|---|---|---|---|---|---|---|",
            *(f"| {name} | {spread(rows)} |" for name, rows in groups(packages["rows"])),
            "",
            f"A random sample (seed {packages['seed']}) of the {packages['population']} kernels on the mirrors. "
            + said(packages),
        ]
    if "dwarf" in document:
        found = document["dwarf"]
        title = f"DWARF, {found['bytes'] / 1e6:.0f} MB ({_short(found['file'])})"
        lines += [
            "",
            f"| {title} | CPU ms | MiB | CPU of pahole's | memory of its |",
            "|---|---|---|---|---|",
            *_rows(found["rows"], "cpu_ms", "memory_mib", "share", "memory share"),
            "",
            said(found),
        ]
    return "\n".join(lines) + "\n"


def said(part: Json) -> str:
    """When it was measured, and with what."""
    return f"{part['day']}, {', '.join(f'{name} {version}' for name, version in sorted(part['versions'].items()))}."


def _rows(rows: Json, *columns: str) -> List[str]:
    return [
        f"| {name} | {' | '.join(_cell(row.get(column), column) for column in columns)} |" for name, row in rows.items()
    ]


def _cell(value: Optional[float], column: str) -> str:
    if value is None:
        return ""
    return (
        f"{value:.1f}"
        if column == "cpu_ms" and value < 100
        else f"{value:.0f}"
        if column in ("cpu_ms", "mib", "memory_mib")
        else f"{value:.3f}"
    )


def _short(name: str) -> str:
    """A package's name without what all of them have."""
    return re.sub(r"^linux-(image|binary)-|_.*$", "", name)


def write() -> None:
    """Puts the figures into the page."""
    page = DOCS / "bench-gen.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} has no place for the figures: {BEGIN.strip()} ... {END.strip()}")
    page.write_text(
        before + BEGIN + "\n" + figures(json.loads((DOCS / "bench/gen.json").read_text())) + "\n" + END + after
    )
