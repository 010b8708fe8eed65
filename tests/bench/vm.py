"""`make bench-vm`: sockpid and its rivals in a guest whose time counts instructions; writes docs/bench/vm.json.

A nanosecond there is an instruction, so figures do not depend on what the host does beside. `--only WORD` for some
jobs; what was measured before stays in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from tests.vm.kernels import KERNELS

from . import peers, report
from .machine import KERNEL, Job, play

RESULT = Path(__file__).parents[2] / "docs/bench/vm.json"
RUN = ["python3", "-I", "-S", "/sockpid/runtime", "run"]
MODULES = "import ctypes, struct, os, mmap"
MEMORY = 2560  # MiB; the tools' files are in memory twice while they are unpacked


def jobs() -> list[Job]:
    """What is slow comes last."""
    found: list[Job] = [
        ("python3 with ctypes", "floor", 3, {"command": ["python3", "-c", MODULES]}),
        ("python3 -I -S with ctypes", "floor", 3, {"command": ["python3", "-I", "-S", "-c", MODULES]}),
        ("sockpid run", "watch", 3, {"command": RUN}),
        ("no probe", "hook", 1, {"command": None, "sockets": [1, 16, 1000]}),
    ]
    for name, options in (("fentry", []), ("kprobe", ["--attach", "kprobe-pmu"]), ("helper", ["--deny", "task_btf"])):
        command = [*RUN, *options, "--max-sockets", "16384"]
        found.append((f"sockpid, {name}", "hook", 1, {"command": command, "sockets": [1, 16, 1000]}))
    for name, peer in peers.SENDING.items():
        found.append((name, "hook", 1, {"command": peer.command, "perf": peer.perf}))
    for name, peer in sorted(peers.STARTING.items(), key=lambda item: "bcc" in item[0]):
        runs = 1 if "bcc" in name else 3
        found.append((name, "watch", runs, {"command": peer.command, "perf": peer.perf}))
    return found


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of what is a number; the last run's of the rest."""
    keys = runs[-1].keys()
    numbers = {k: [r[k] for r in runs if isinstance(r.get(k), int | float)] for k in keys}
    return {k: statistics.median(v) if (v := numbers[k]) else runs[-1][k] for k in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="WORD", help="jobs whose name holds it; may be repeated")
    wanted = parser.parse_args().only
    chosen = [job for job in jobs() if not wanted or any(word in job[0] for word in wanted)]
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {"start": {}, "send": {}}
    document["kernel"] = KERNELS[KERNEL].package.release
    document["versions"] = dict(peers.versions())
    played = iter(play(chosen, more=peers.userland(), memory=MEMORY, timeout=3600, btf=True))
    for name, kind, count, _ in chosen:
        runs = [figures for _, figures in (next(played) for _ in range(count))]
        document["send" if kind == "hook" else "start"][name] = summed(runs)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    report.write()


if __name__ == "__main__":
    main()
