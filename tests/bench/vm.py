"""`make bench-vm`: sockpid and its rivals in guests whose time counts instructions; writes docs/bench/vm.json.

A nanosecond there is an instruction, so figures do not depend on what the host does beside. Each job has a guest of its
own, so they do not depend on other jobs either, and one that fails takes none with it. `--only WORD` for some jobs,
`--part PART` for those of some parts; what was measured before stays in the file, and figures go there as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from tests.vm.packages import PackageError
from tests.vm.qemu import GuestError, kill_all

from . import machine, peers, pids, report
from .machine import Job, play

RESULT = Path(__file__).parents[2] / "docs/bench/vm.json"
RUN = ["python3", "-I", "-S", "/sockpid/runtime/__main__.py", "run"]
MODULES = "import ctypes, struct, os, mmap"
WAYS = {"fentry": [], "kprobe": ["--attach", "kprobe-pmu"], "helper": ["--deny", "task_btf"]}
FEW, SHARED = [1, 20000, 1, "own", ["nodelay", "cork", "counted"]], [16, 20000, 4, "shared", ["cork", "counted"]]
SIXTEEN, THOUSAND, OWN = ([n, 20000, p, "own", ["cork", "counted"]] for n, p in ((16, 1), (1000, 1), (16, 8)))
MANY = [100_000, 20000, 1, "own", ["cork", "counted"]]
"""Connections, both ends of which sockpid knows. It is given room for more, as an LRU that is nearly full evicts."""
NO_TOOLS, TOOLS, LARGE = 512, 2560, 3072
"""MiB. The tools' files are in memory twice while they are unpacked; a hundred thousand connections want one GiB."""
LIMIT = 1800.0
"""Seconds that a job may take: of this host's, and of the guest's, where waiting takes none of ours."""
AT_ONCE = min(2, os.cpu_count() or 1)
"""Guests. One uses one CPU and, with its archive of tools, up to 4 GiB."""


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
    """Medians of what is a number, over the runs that did not fail; the last one's of the rest."""
    runs = [run for run in runs if "failed" not in run] or runs[-1:]
    numbers = {k: [r[k] for r in runs if isinstance(r.get(k), int | float)] for k in runs[-1]}
    return {k: statistics.median(v) if (v := numbers[k]) else runs[-1][k] for k in runs[-1]}


def measured(each: Planned) -> tuple[dict[str, Any], float]:
    """Its figures, or why there are none, and how many seconds that took here."""
    started = time.monotonic()
    try:
        more = peers.userland() if each.tools else b""
        runs = [figures for _, figures in play([each.job], more, each.memory, timeout=LIMIT, btf=each.tools)]
        figures = pids.judged(runs[0]) if each.part == "pids" else summed(runs)
    except (GuestError, PackageError, RuntimeError) as error:
        figures = {"failed": str(error)}
    return figures, time.monotonic() - started


def main() -> int:
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
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as guests, contextlib.ExitStack() as interrupted:
        interrupted.callback(kill_all)
        interrupted.callback(guests.shutdown, wait=False, cancel_futures=True)
        waiting = {guests.submit(measured, each): each for each in chosen}
        for count, done in enumerate(as_completed(waiting), 1):
            part, name = waiting[done].part, waiting[done].job[0]
            figures, seconds = done.result()
            enter(part, name, figures)
            failed += "failed" in figures
            ending = f": {figures['failed']}" if "failed" in figures else ""
            print(f"{count}/{len(chosen)} {part}: {name}: {seconds:.0f} s{ending}", file=sys.stderr, flush=True)
    report.write()
    return bool(failed)


def enter(part: str, name: str, figures: dict[str, Any]) -> None:
    """Into the document."""
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    document["kernel"] = machine.kernel().package.release
    document["versions"] = dict(peers.versions())
    document.setdefault(part, {})[name] = figures
    RESULT.parent.mkdir(exist_ok=True)
    written = RESULT.with_suffix(".new")
    written.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    os.replace(written, RESULT)


if __name__ == "__main__":
    sys.exit(main())
