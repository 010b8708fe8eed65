"""The report of a sample that was verified, as a page for people and a document for programs."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

import sockpid
from sockpid.errors import UsageError
from sockpid.table import writer
from sockpid.table.layout import Layout
from sockpid.table.table import series_of
from sockpid_gen.btf import pahole
from sockpid_gen.extraction.entry import KernelEntry
from sockpid_gen.table import shard

from .sampling import Sampled

Row = Dict[str, Any]
"""One kernel: what the table has of it, what that was held against, when, and what came of it."""


def row_of(sampled: Sampled, seed: int) -> Row:
    """A kernel of a sample that was drawn with `seed`, looked at now."""
    kernel, package, verdict, reason = sampled
    row: Row = {
        "arch": kernel.arch,
        "series": series_of(kernel.release),
        "release": kernel.release,
        "build_id": kernel.build_id,
        "layout": layout_id(kernel.layout),
        "table": {"kind": kernel.provenance.get("kind"), "source": kernel.provenance.get("source")},
        "against": package,
        "date": _today(),
        "seed": seed,
    }
    if verdict is None:
        return {**row, "reason": reason}
    return {
        **row,
        "facts": verdict.fields,
        "independent": verdict.independent,
        "witnesses": list(verdict.witnesses),
        "disagreements": [str(d) for d in verdict.disagreements],
    }


def document(rows: Sequence[Row], kernels: int, available: int) -> Dict[str, Any]:
    """The report for programs. kernels, available: how many the table has, and how many of these a debug package."""
    import drgn

    tools = {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__), "pahole": pahole.version() or "none"}
    return {
        "date": _today(),
        "tools": tools,
        "table_kernels": kernels,
        "available": available,
        "kernels": list(rows),
    }


def kept(path: Path, table: Iterable[KernelEntry]) -> List[Row]:
    """The rows of an earlier report that still hold: good ones, of kernels whose entries say what they said then.

    None if there is no report. Raises UsageError if the file is something else.
    """
    beside = path.with_suffix(".json")
    entries = {kernel.build_id: kernel for kernel in table}
    try:
        rows = json.loads(beside.read_bytes())["kernels"]
        return [
            row
            for row in rows
            if row.get("disagreements") == []
            and row["build_id"] in entries
            and row["layout"] == layout_id(entries[row["build_id"]].layout)
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{beside} is no report of `sockpid-gen verify --sample`: {error!r}") from None


def layout_id(layout: Layout) -> str:
    """What a layout has as id in a table: two layouts with one id say the same of every field."""
    return str(writer.add({"structs": {}, "layouts": {}, "kernels": []}, {}, layout)["layout"])


def _today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def write(path: Path, report: Dict[str, Any]) -> None:
    """Writes the page to `path` and the document beside it, NAME.json."""
    shard.write(path.with_suffix(".json"), (json.dumps(report, indent=1) + "\n").encode())
    shard.write(path, page(report).encode())


def page(report: Dict[str, Any]) -> str:
    """The report as Markdown."""
    judged = [row for row in report["kernels"] if "facts" in row]
    unjudged = [row for row in report["kernels"] if "facts" not in row]
    wrong = [row for row in judged if row["disagreements"]]
    arches = len({row["arch"] for row in judged})
    series = sorted({row["series"] for row in judged}, key=lambda text: [int(part) for part in text.split(".")])
    seeds = ", ".join(map(str, sorted({row["seed"] for row in report["kernels"]})))
    tools = ", ".join(f"{name} {version}" for name, version in sorted(report["tools"].items()))
    lines = [
        "# The table against DWARF",
        "",
        f"Made by `sockpid-gen verify --sample {len(judged)} --report FILE` ({tools}), last on {report['date']}, out "
        f"of {report['table_kernels']} kernels of the table; of {report['available']} of them the mirrors had the "
        "debug package. A run keeps what the report has of kernels whose entries have not changed since, and adds what "
        f"is missing (seeds used: {seeds}). The JSON beside this page says the same, and when each kernel was looked "
        "at.",
        "",
        f"**{len(judged)} kernels of {arches} architectures and {len(series)} series ({', '.join(series)}): "
        + (f"{len(wrong)} disagree.**" if wrong else "no field differs.**"),
        "",
        'Held against the DWARF of the debug package is every type, field and enumerator of the entry ("facts"), also '
        "absent ones. Entries made of BTF are held against drgn's reading of the DWARF; entries made of DWARF, which "
        "are those of kernels without BTF, also against pahole's.",
        "",
        "| architecture | kernel | entry made of | held against | facts | differ |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(
        judged, key=lambda row: (row["arch"], [int(n) for n in row["series"].split(".")], row["release"])
    ):
        readers = " and ".join(
            dict.fromkeys(name.partition(" read by ")[2].partition(" ")[0].rstrip(",") for name in row["witnesses"][1:])
        )
        package = row["against"].replace("~", "\\~")
        cells = row["arch"], row["release"], row["table"]["kind"].upper(), f"{package} ({readers})", row["facts"]
        lines.append(f"| {' | '.join(map(str, cells))} | {len(row['disagreements'])} |")
    for row in wrong:
        lines += ["", f"{row['arch']} {row['release']}:", "", *(f"* {line}" for line in row["disagreements"])]
    if unjudged:
        lines += ["", "Not verified, and replaced by the next of the sample:", ""]
        lines += [f"* {row['arch']} {row['release']}: {row['reason']}" for row in unjudged]
    return "\n".join(lines) + "\n"
