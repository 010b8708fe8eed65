"""python -m tests.accuracy: how often is the printed PID right? Natively, or with --in-vm on a kernel of the lab."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from . import place, report
from .field.catalogue import CATALOGUE
from .judge import PROBE, Verdict, attached, judge

SHOWN = 3  # of each kind of finding


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--scenario", action="append", choices=list(CATALOGUE), help="may be repeated; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of sockets")
    parser.add_argument("--in-vm", metavar="KERNEL", help="on a kernel of the lab, such as 6.1/amd64")
    parser.add_argument("--attach", metavar="MECHANISM", help="passed to sockpid")
    parser.add_argument("--deny", metavar="NAME,...", help="passed to sockpid")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="add the results to this table (docs/accuracy.md)")
    options = parser.parse_args()
    if options.list:
        for name, scenario in CATALOGUE.items():
            print(f"{name:20} {scenario.what}")
        return 0
    played = _play(options)
    ways = attached(played.doctor)
    verdicts = judge(played.truth, played.events, ways)
    if played.lost:
        verdicts.setdefault(PROBE, Verdict()).odd.append(f"events were lost: {played.logs}")
    name = _name(options.in_vm, played.doctor)
    column = report.column(verdicts, ways)
    if options.report and PROBE not in verdicts:
        columns = report.enter(options.report.with_suffix(".json"), name, column)
        options.report.write_text(report.markdown(columns), encoding="utf-8")
    if options.json:
        print(json.dumps({name: column}, indent=1))
    else:
        _print(name, ways, verdicts)
    return 0 if all(verdict.ok for verdict in verdicts.values()) else 1


def _name(kernel: str | None, doctor: place.Json) -> str:
    """What the column is called: the kernel, and how owners are learnt at connect."""
    release = str(doctor.get("release", "?")).split("-", maxsplit=1)[0]
    attached_by = next((hook["attached"] for hook in doctor.get("hooks", ()) if hook["hook"] == "connect"), None)
    return f"{kernel or release + ' ' + str(doctor.get('arch'))}, {(attached_by or 'none').split()[0]}"


def _play(options: argparse.Namespace) -> place.Played:
    arguments = ["--scale", str(options.scale)]
    for name in options.scenario or ():
        arguments += ["--scenario", name]
    for option in ("attach", "deny"):
        if value := getattr(options, option):
            arguments += [f"--probe=--{option}", f"--probe={value}"]
    return place.in_guest(options.in_vm, arguments) if options.in_vm else place.natively(arguments)


def _print(name: str, ways: set[str], verdicts: Mapping[str, Verdict]) -> None:
    """A line a scenario, then what is not as it should be."""
    print(f"{name}: owners are learnt by {', '.join(sorted(ways))}")
    results = report.column(verdicts, ways)["scenarios"]
    for scenario, result in results.items():
        print(f"{'ok  ' if verdicts[scenario].ok else 'BAD '} {scenario:20} {report.cell(result)}")
    print(f"     {report.total(results)}")
    for scenario, verdict in verdicts.items():
        for what in ("wrong", "missed", "odd"):
            found: list[str] = getattr(verdict, what)
            for text in found[:SHOWN]:
                print(f"{scenario}: {what} ({len(found)}): {text}")


if __name__ == "__main__":
    sys.exit(main())
