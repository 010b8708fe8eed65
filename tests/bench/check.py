"""Costs that are the same on every machine, against those committed in costs.json. `--write` commits new ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sockpid.image import parse_image

ROOT = Path(__file__).parents[2]
COSTS = Path(__file__).with_name("costs.json")
TOLERANCE = 0.05
NEEDLESS = {
    *("argparse", "bz2", "fnmatch", "gettext", "hashlib", "ipaddress", "lzma", "pkgutil", "queue", "selectors"),
    *("shutil", "socket", "subprocess", "threading"),
}
"""What of the standard library an attached probe has no use for."""

_IMPORTED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import sockpid.cli
sockpid.cli._arguments(["run", "--json"])
import sockpid.run
json.dump(sorted(sys.modules), sys.stdout)
"""


def imported() -> list[str]:
    """The modules that are there when `sockpid run` attaches by a table."""
    command = [sys.executable, "-I", "-S", "-c", _IMPORTED, str(ROOT / "runtime")]
    found: list[str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measure() -> dict[str, int]:
    costs = {"modules of sockpid before attaching": sum(name.startswith("sockpid") for name in imported())}
    for path in sorted((ROOT / "bpf_bytecode").glob("*.json")):
        costs[f"bytes of {path.name}"] = path.stat().st_size
        for name, program in parse_image(path.read_bytes(), path.name).programs.items():
            costs[f"instructions of {name} in {path.name}"] = len(program.insns) // 8
    return costs


def exceeded(costs: dict[str, int], committed: dict[str, int]) -> list[str]:
    """A line for each cost that is greater than committed by more than the tolerance, or not committed."""
    return [
        f"{name}: {value}, committed {committed.get(name)}"
        for name, value in costs.items()
        if name not in committed or value > committed[name] * (1 + TOLERANCE)
    ]


def main() -> int:
    costs = measure()
    if sys.argv[1:] == ["--write"]:
        COSTS.write_text(json.dumps(costs, indent=1, sort_keys=True) + "\n")
        return 0
    worse = exceeded(costs, json.loads(COSTS.read_text()))
    print("\n".join(worse or ["no cost is above what is committed"]))
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())
