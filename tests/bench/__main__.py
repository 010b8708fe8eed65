"""`make bench`: natively, what starting, sending, and raising and telling events cost; into docs/bench/native.json.

Needs root. `--part PART` for some of it; what was measured before stays in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sockpid.errors import SockpidError

from . import footprint, rates, report, scale, sending, starting, stream_report

RESULT = Path(__file__).parents[2] / "docs/bench/native.json"
MOUNTED = "SOCKPID_BENCH_MOUNTS"

PARTS: Mapping[str, Callable[[argparse.Namespace], Any]] = {
    "send": lambda options: sending.measure(options.calls),
    "rates": lambda options: rates.measure(options.seconds),
    "scale": lambda options: scale.measure(),
    "footprint": lambda options: footprint.measure(),
    "start": lambda options: starting.measure(options.runs),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="may be repeated; default: all")
    parser.add_argument("--runs", type=int, default=9, help="starts of each tool to take the median of")
    parser.add_argument("--calls", type=int, default=200_000, help="calls of the send hook")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long events are raised for")
    options = parser.parse_args()
    if MOUNTED not in os.environ:  # tracefs may have to be mounted, and not for others
        os.environ[MOUNTED] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "tests.bench", *sys.argv[1:]])
    for part in options.part or PARTS:
        try:
            enter(part, PARTS[part](options))
        except (SockpidError, subprocess.CalledProcessError, RuntimeError) as error:
            print(f"bench: {part}: {error}", file=sys.stderr)
            return 1
    report.write()
    return 0


def enter(part: str, figures: Any) -> None:
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    document[part] = {**stream_report.where(), "figures": figures}
    RESULT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
