"""`make bench-vm`: sockpid and its rivals in guests whose time counts instructions; writes docs/bench/vm.json.

A nanosecond there is an instruction, so figures do not depend on what the host does beside. `--only WORD` for some
jobs, `--part PART` for those of some parts; what was measured before stays in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.vm.kernels import KERNELS

from . import peers, pids, report
from .machine import KERNEL, Job, play

RESULT = Path(__file__).parents[2] / "docs/bench/vm.json"
RUN = ["python3", "-I", "-S", "/sockpid/runtime/__main__.py", "run"]
MODULES = "import ctypes, struct, os, mmap"
WAYS = {"fentry": [], "kprobe": ["--attach", "kprobe-pmu"], "helper": ["--deny", "task_btf"]}
FEW, SHARED = [1, 20000, 1, "own", ["nodelay", "cork", "counted"]], [16, 20000, 4, "shared", ["cork", "counted"]]
SIXTEEN, THOUSAND, OWN = ([n, 20000, p, "own", ["cork", "counted"]] for n, p in ((16, 1), (1000, 1), (16, 8)))
MANY = [100_000, 20000, 1, "own", ["cork", "counted"]]
"""Connections, both ends of which sockpid knows. It is given room for more, as an LRU that is nearly full evicts."""
NO_TOOLS, TOOLS, LARGE = 512, 2560, 3072
"""MiB. The tools' files are in memory twice while they are unpacked; a hundred thousand sockets want one GiB."""


class Planned(NamedTuple):
    """A job, under which part of the document its figures go, and what it needs: the tools' files, so much memory."""

    part: str
    job: Job
    tools: bool = False
    memory: int = NO_TOOLS


def planned() -> Iterator[Planned]:
    """What is slow comes last."""
    yield Planned("start", ("python3 with ctypes", "floor", 3, {"command": ["python3", "-c", MODULES]}))
    yield Planned("start", ("python3 -I -S with ctypes", "floor", 3, {"command": [*RUN[:3], "-c", MODULES]}))
    yield Planned("start", ("sockpid run", "watch", 3, {"command": RUN}))
    for name, options in WAYS.items():
        cases = [FEW, SIXTEEN, THOUSAND, OWN, SHARED]
        command = [*RUN, *options, "--max-sockets", "16384"]
        yield Planned("send", (f"sockpid, {name}", "hook", 1, {"command": command, "cases": cases}))
        yield Planned("life", (f"sockpid, {name}", "life", 1, {"command": [*RUN, *options]}))
    yield Planned("life", ("sockpid --count", "life", 1, {"command": [*RUN, "--count"]}))
    yield Planned("table", ("sockpid", "table", 1, {"counts": [10, 1000, 10000]}))
    for sockets in (8192, 100_000, 1_000_000):
        command = [*RUN, "--max-sockets", str(sockets)]
        yield Planned("maps", (f"sockpid, {sockets}", "watch", 1, {"command": command}), memory=LARGE)
    command = [*RUN, "--max-sockets", "524288"]
    yield Planned("many", ("sockpid, fentry", "hook", 1, {"command": command, "cases": [MANY]}), memory=LARGE)
    slow = lambda item: "bcc" in item[0]  # noqa: E731 - a key
    for name, peer in sorted(peers.SENDING.items(), key=slow):
        arguments = {**peer._asdict(), "cases": [FEW, THOUSAND, SHARED]}
        yield Planned("send", (name, "hook", 1, arguments), tools=True, memory=TOOLS)
    for name, peer in sorted(peers.OWNERS.items(), key=slow):
        yield Planned("life", (name, "life", 1, peer._asdict()), tools=True, memory=TOOLS)
    for name, peer in sorted(peers.STARTING.items(), key=slow):
        arguments = {"command": peer.command, "perf": peer.perf}
        yield Planned("start", (name, "watch", 1 if "bcc" in name else 3, arguments), tools=True, memory=TOOLS)
    for name, arguments in pids.jobs(RUN):
        yield Planned("pids", (name, "pids", 1, arguments), tools=True, memory=LARGE)


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of what is a number; the last run's of the rest."""
    keys = runs[-1].keys()
    numbers = {k: [r[k] for r in runs if isinstance(r.get(k), int | float)] for k in keys}
    return {k: statistics.median(v) if (v := numbers[k]) else runs[-1][k] for k in keys}


def measure(chosen: list[Planned]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Part, name and figures of each, those that need the same from one guest."""
    for needs in dict.fromkeys((each.tools, each.memory) for each in chosen):
        mine = [each for each in chosen if (each.tools, each.memory) == needs]
        tools, memory = needs
        more = peers.userland() if tools else b""
        played = iter(play([each.job for each in mine], more, memory, timeout=3600, btf=tools))
        for part, (name, _, count, _) in ((each.part, each.job) for each in mine):
            runs = [figures for _, figures in (next(played) for _ in range(count))]
            yield part, name, pids.judged(runs[0]) if part == "pids" else summed(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="WORD", help="jobs whose name holds it; may be repeated")
    parser.add_argument("--part", action="append", metavar="PART", help="jobs of this part; may be repeated")
    options = parser.parse_args()
    chosen = [
        each
        for each in planned()
        if (not options.only or any(word in each.job[0] for word in options.only))
        and (not options.part or each.part in options.part)
    ]
    for part, name, figures in measure(chosen):
        enter(part, name, figures)
    report.write()


def enter(part: str, name: str, figures: dict[str, Any]) -> None:
    """Into the document, which another run may be writing to as well."""
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    document["kernel"] = KERNELS[KERNEL].package.release
    document["versions"] = dict(peers.versions())
    document.setdefault(part, {})[name] = figures
    RESULT.parent.mkdir(exist_ok=True)
    written = RESULT.with_suffix(".new")
    written.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    os.replace(written, RESULT)


if __name__ == "__main__":
    main()
