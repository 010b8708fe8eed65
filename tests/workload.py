"""Real processes whose sockets really retransmit: the truth that events are held against.

Runs on the target's Python alone, also inside a guest: `python3 -I -S tests/workload.py --processes 20`. Prints one
JSON object per socket as soon as it is connected (pid, tid, comm, tuple), then lets the kernel retransmit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

if __name__ == "__main__":  # run as a script, perhaps with -I -S: the runtime lies beside the tests
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "runtime"))

from sockpid.host import kernel
from sockpid.subjects.deaf import Pair


def name_self(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)


def worker(families: list[str], seconds: float) -> None:
    """One process: a deaf pair per family, two segments each, then sleep while the kernel retransmits."""
    pairs = [Pair(family) for family in families]
    for pair in pairs:
        truth = {"pid": os.getpid(), "comm": kernel.comm(), **pair.tuple._asdict()}
        os.write(1, (json.dumps(truth) + "\n").encode())
        pair.send()
    time.sleep(seconds)
    for pair in pairs:
        pair.close()


def hog(seconds: float) -> None:
    """A process that has nothing to do with any socket and is `current` most of the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--families", default="inet,inet6,mapped", help="a deaf pair of each per process")
    parser.add_argument("--copies", type=int, default=1, help="so many deaf pairs of each family per process")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long the sockets stay open")
    parser.add_argument("--name", default="", help="call the processes NAME-0, NAME-1...")
    parser.add_argument("--hogs", type=int, default=0, help="processes beside them that only spin")
    arguments = parser.parse_args()
    children = []
    for index in range(arguments.processes + arguments.hogs):
        child = os.fork()
        if child == 0:
            if index >= arguments.processes:
                name_self("cpu-hog")
                hog(arguments.seconds)
            else:
                if arguments.name:
                    name_self(f"{arguments.name}-{index}")
                worker(arguments.families.split(",") * arguments.copies, arguments.seconds)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
