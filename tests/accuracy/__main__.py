"""python -m tests.accuracy: how often is the printed PID right? Natively, or with --in-vm on a kernel of the lab."""

from __future__ import annotations

import argparse
import json
import sys

from tests.place import Somewhere

from . import results
from .field.catalogue import CATALOGUE
from .play import Outcome, findings, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--scenario", action="append", choices=list(CATALOGUE), help="may be repeated; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of sockets")
    parser.add_argument("--in-vm", metavar="KERNEL", help="on a kernel of the lab, such as 6.1/amd64")
    parser.add_argument("--attach", metavar="MECHANISM", help="passed to sockpid")
    parser.add_argument("--deny", metavar="NAME,...", help="passed to sockpid")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    if options.list:
        for name, scenario in CATALOGUE.items():
            print(f"{name:20} {scenario.what}")
        return 0
    where = Somewhere(options.in_vm, attach=options.attach, deny=options.deny)
    outcome = play(where, options.scale, options.scenario or ())
    if options.json:
        print(json.dumps({where.name: results.result(outcome)}, indent=1))
    else:
        _print(where.name, outcome)
    return 0 if outcome.ok else 1


def _print(name: str, outcome: Outcome) -> None:
    """A line a scenario, then what is not as it should be."""
    print(f"{name}: owners are learnt by {', '.join(sorted(outcome.ways))}")
    scenarios = results.result(outcome)["scenarios"]
    for scenario, found in scenarios.items():
        print(f"{'ok  ' if outcome.verdicts[scenario].ok else 'BAD '} {scenario:20} {results.cell(found)}")
    print(f"     {results.total(scenarios)}")
    for text in findings(outcome):
        print(text)


if __name__ == "__main__":
    sys.exit(main())
