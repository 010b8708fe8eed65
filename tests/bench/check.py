"""Costs that are the same on every machine, against those committed in costs.json. `--write` commits new ones.

`--guest` also starts sockpid in a guest of QEMU, and counts instructions and system calls until it is attached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sockpid.image.image import parse_image
from sockpid_gen.bundle import bundle

from . import machine

ROOT = Path(__file__).parents[2]
COSTS = Path(__file__).with_name("costs.json")
TOLERANCE = 0.05
NEVER = {
    *(
        "argparse",
        "bz2",
        "contextlib",
        "fnmatch",
        "gettext",
        "hashlib",
        "ipaddress",
        "json",
        "lzma",
        "pkgutil",
        "queue",
    ),
    *("re", "runpy", "shutil", "subprocess", "typing"),
}
"""What of the standard library a run has no use for that writes a table."""

NEEDLESS = NEVER | {"collections", "enum", "functools", "operator", "selectors", "signal", "socket", "threading"}
"""And an attached probe."""

_IMPORTED = """
import sys
sys.path.insert(0, sys.argv[1])
import sockpid.cli.cli
sockpid.cli.cli._arguments(["run", "--json"])
import sockpid.run.run
import sockpid.probe.tracer
sockpid.probe.tracer.load_image("little")
print(*sys.modules)
"""
_AFTERWARDS = """
import sockpid.run.notify, sockpid.outputs, sockpid.outputs.table, sockpid.probe.seed, sockpid.run.session
import sockpid.run.start
sockpid.run.signals.Signals().listen()
print(*sys.modules)
"""


def imported(afterwards: bool = False) -> list[str]:
    """The modules that are there when `sockpid run` attaches by a table; afterwards: when it waits for events."""
    command = [sys.executable, "-I", "-S", "-c", _IMPORTED + afterwards * _AFTERWARDS, str(ROOT / "runtime")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1].split()


def measure() -> dict[str, int]:
    costs = {"modules of sockpid before attaching": sum(name.startswith("sockpid") for name in imported())}
    costs["modules of all before attaching"] = len(imported())
    costs["bytes of the bundle"] = len(bundle.build(ROOT / "offsets", bundle.Choice(), with_pyroute2=False).content)
    costs["bytes of the table"] = sum(path.stat().st_size for path in (ROOT / "offsets").glob("*/*.json"))
    for path in sorted((ROOT / "bpf_bytecode").glob("*.json")):
        costs[f"bytes of {path.name}"] = path.stat().st_size
        for name, program in parse_image(path.read_bytes(), path.name).programs.items():
            costs[f"instructions of {name} in {path.name}"] = len(program.insns) // 8
    return costs


def in_guest() -> dict[str, int]:
    """What starting takes on Linux 6.1 where time counts instructions, and every system call is counted."""
    command = ["python3", "-I", "-S", "/sockpid/runtime/__main__.py", "run"]
    ((_, figures),) = machine.play([("sockpid run", "watch", 1, {"command": command})])
    if "failed" in figures:
        raise RuntimeError(figures["failed"])
    return {
        "thousand instructions until attached": round(figures["cpu_s"] * 1e6),
        "system calls until attached": figures["syscalls"],
    }


def exceeded(costs: dict[str, int], committed: dict[str, int]) -> list[str]:
    """A line for each cost that is greater than committed by more than the tolerance, or not committed."""
    return [
        f"{name}: {value}, committed {committed.get(name)}"
        for name, value in costs.items()
        if name not in committed or value > committed[name] * (1 + TOLERANCE)
    ]


def main() -> int:
    costs = measure()
    committed = json.loads(COSTS.read_text())
    if "--guest" in sys.argv[1:]:
        costs |= in_guest()
    if "--write" in sys.argv[1:]:
        COSTS.write_text(json.dumps({**committed, **costs}, indent=1, sort_keys=True) + "\n")
        return 0
    worse = exceeded(costs, committed)
    print("\n".join(worse or ["no cost is above what is committed"]))
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())
