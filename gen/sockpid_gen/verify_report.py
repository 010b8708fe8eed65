"""The report of a sample that was verified, as a page for people and a document for programs."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

import sockpid
from sockpid.table import series_of

from . import pahole, shard
from .sampling import Sampled


def document(sampled: Sequence[Sampled], seed: int, kernels: int, available: int) -> Dict[str, Any]:
    """The report for programs, of a run that ended now. kernels, available: in the table, with a debug package."""
    import drgn

    tools = {"sockpid-gen": sockpid.__version__, "drgn": str(drgn.__version__), "pahole": pahole.version() or "none"}
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    rows: List[Dict[str, Any]] = []
    for kernel, package, verdict, reason in sampled:
        row: Dict[str, Any] = {
            "arch": kernel.arch,
            "series": series_of(kernel.release),
            "release": kernel.release,
            "build_id": kernel.build_id,
            "table": {"kind": kernel.provenance.get("kind"), "source": kernel.provenance.get("source")},
            "against": package,
        }
        if verdict is None:
            row["reason"] = reason
        else:
            row.update(
                facts=verdict.fields,
                independent=verdict.independent,
                witnesses=list(verdict.witnesses),
                disagreements=[str(d) for d in verdict.disagreements],
            )
        rows.append(row)
    found = {"table_kernels": kernels, "available": available, "kernels": rows}
    return {"date": date, "seed": seed, "tools": tools, **found}


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
    tools = ", ".join(f"{name} {version}" for name, version in sorted(report["tools"].items()))
    lines = [
        "# The table against DWARF",
        "",
        f"Made on {report['date']} by `sockpid-gen verify --sample {len(judged)} --seed {report['seed']}` ({tools}) "
        f"out of {report['table_kernels']} kernels of the table; of {report['available']} of them the archive had "
        "the debug package. The JSON beside this page says the same.",
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
