"""python -m tests.storm: random programs beside the probe, natively or with --in-vm on a kernel of the lab."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

from tests.place import Json, Somewhere, runtime_digest

from . import results
from .field.kinds import KINDS
from .plan import Plan
from .play import Outcome, storm
from .shrink import shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the kinds of steps")
    parser.add_argument("--seed", type=int, default=1, help="of the first storm; the next ones follow")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one storm")
    parser.add_argument("--events", type=int, default=0, help="storms until so many were judged")
    parser.add_argument("--processes", type=int, default=6, help="that a storm begins with")
    parser.add_argument("--without", action="append", default=[], choices=sorted(KINDS), help="kinds to leave out")
    parser.add_argument("--in-vm", metavar="KERNEL", help="on a kernel of the lab, such as 6.1/amd64")
    parser.add_argument("--append", default="", help="words for the guest's kernel command line, such as preempt=full")
    parser.add_argument("--smp", type=int, default=2, help="CPUs of the guest")
    parser.add_argument("--attach", metavar="MECHANISM", help="passed to sockpid")
    parser.add_argument("--deny", metavar="NAME,...", help="passed to sockpid")
    parser.add_argument("--shrink", metavar="FAULT", help="find the smallest storm that still has this fault")
    parser.add_argument("--plan", metavar="JSON", help="this storm, in place of what the seed gives")
    parser.add_argument("--kept", action="store_true", help="play the storms that once found something")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--save", type=Path, metavar="DIRECTORY", help="keep the raw files")
    parser.add_argument("--show", type=int, default=2, help="examples of each fault")
    options = parser.parse_args()
    if options.list:
        for name, kind in KINDS.items():
            print(f"{name:20} {kind.what}")
        return 0
    where = Somewhere(options.in_vm, options.append, options.smp, options.attach, options.deny)
    plan = Plan.parse(json.loads(options.plan)) if options.plan else None
    if options.kept:
        return max(_once(found, kept, where) for found, kept in Plan.kept().items())
    if options.shrink:
        return _shrink(plan or _plan(options, options.seed), where, options.shrink)
    return _accumulate(options, where, plan)


def _once(found: str, plan: Plan, where: Somewhere) -> int:
    """Plays a storm that was kept."""
    outcome = storm(plan, where)
    print(f"{found}: {results.line(results.result(plan, outcome))}", flush=True)
    return 0 if outcome.verdict.ok else 1


def _plan(options: argparse.Namespace, seed: int) -> Plan:
    return Plan.of(seed, options.seconds, options.processes, frozenset(options.without), options.in_vm is not None)


def _accumulate(options: argparse.Namespace, where: Somewhere, given: Plan | None) -> int:
    """Storm after storm until there are enough events."""
    kept: list[Json] = []
    for seed in itertools.count(options.seed):
        plan = given or _plan(options, seed)
        outcome = storm(plan, where)
        kept.append(results.result(plan, outcome))
        _tell(options, where.name, seed, plan, outcome, kept[-1])
        if given or results.total(kept)["events"] >= options.events:
            break
    summed = results.total(kept)
    if options.json:
        print(json.dumps({where.name: summed}, indent=1))
    else:
        print(f"{where.name}, runtime {runtime_digest()}: {summed['storms']} storms: {results.line(summed)}")
    return 1 if summed["faults"] else 0


def _tell(options: argparse.Namespace, name: str, seed: int, plan: Plan, outcome: Outcome, entered: Json) -> None:
    """A line on the standard error, and what is not as it should be."""
    print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}: {results.line(entered)}", file=sys.stderr)
    for what, texts in outcome.verdict.examples.items():
        for text in texts[: options.show]:
            print(f"  {what} ({outcome.verdict.faults[what]}): {text}", file=sys.stderr)
    if not outcome.verdict.ok:
        print(f"  plan {plan.json()}", file=sys.stderr)
    if options.save:
        outcome.played.save(options.save / f"{seed}")
    sys.stderr.flush()


def _shrink(plan: Plan, where: Somewhere, fault: str) -> int:
    """Prints ever smaller plans that have the fault, the smallest last."""

    def finds(candidate: Plan) -> bool:
        outcome = storm(candidate, where)
        found = bool(outcome.verdict.faults[fault])
        print(f"{'found  ' if found else 'nothing'} {candidate.json()}", file=sys.stderr, flush=True)
        if found:
            for text in outcome.verdict.examples[fault][:1]:
                print(f"        {text}", file=sys.stderr, flush=True)
        return found

    if not any(finds(plan) for _ in range(3)):
        print(f"no {fault!r} in three storms", file=sys.stderr)
        return 1
    print(shrink(plan, finds).json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
