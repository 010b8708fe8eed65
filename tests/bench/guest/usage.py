"""What a process takes, as /proc has it."""

from __future__ import annotations

import os
from typing import List, Tuple


def cpu_of(pid: int) -> float:
    """Seconds on a CPU, of all threads that live."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    except OSError:
        pass
    return total / 1e9


def rollup(pid: int) -> Tuple[int, int]:
    """Bytes resident, and of these private ones."""
    values: List[int] = [0, 0]
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name == "Rss":
                    values[0] += int(rest.split()[0]) * 1024
                elif name in ("Private_Clean", "Private_Dirty"):
                    values[1] += int(rest.split()[0]) * 1024
    except OSError:
        pass
    return values[0], values[1]


def high_water(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
