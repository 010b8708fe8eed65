"""`make bench`: starting, attaching, and the send hook per call. Prints Markdown; `--json` for machines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from sockpid import kernel
from sockpid.errors import SockpidError
from tests.bench import sending, starting


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=15, help="starts to take the median of")
    parser.add_argument("--calls", type=int, default=200_000, help="calls of the send hook")
    arguments = parser.parse_args()
    try:
        report: dict[str, Any] = {
            "kernel": kernel.identify()._replace(arch=None)._asdict(),  # type: ignore[arg-type] # plain data only
            "machine": f"{os.uname().machine}, {os.cpu_count()} CPUs",
            "python": sys.version.split()[0],
            "start": starting.measure(arguments.runs),
            "send": sending.measure(arguments.calls),
        }
    except SockpidError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0
    text = markdown(report)
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)
    return 0


def markdown(report: dict[str, Any]) -> str:
    start, send = report["start"], report["send"]
    lines = [
        f"# sockpid on {report['kernel']['release']} ({report['machine']}, Python {report['python']})",
        "",
        "| start, median (min..max) | wall ms | CPU ms | ratio of CPU to the floor |",
        "|---|---|---|---|",
    ]
    floor = start["floor"]["cpu_ms"]["median"]
    for name, figures in start.items():
        cells = [f"{v['median']:.1f} ({v['min']:.1f}..{v['max']:.1f})" for v in figures.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {figures['cpu_ms']['median'] / floor:.2f} |")
    lines += [
        "",
        "| send hook, per call | ns | above an empty program | ratio |",
        "|---|---|---|---|",
    ]
    for name, row in send.items():
        above = row["ns"] - row["empty_ns"]
        lines.append(f"| {name} | {row['ns']:.1f} | +{above:.1f} ns | {row['ns'] / row['empty_ns']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
