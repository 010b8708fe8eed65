"""The send hook of one tool: its own time per call, and what it adds to each write of 64 bytes.

The kernel counts a program's time only with statistics on, which costs time itself: the two are measured apart.
"""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any, Dict, List, Optional, Sequence

import bpf_objects

STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"
WRITES = "/run/writes"


def measure(
    command: Optional[Sequence[str]],
    programs: Sequence[str] = (),
    sockets: Sequence[int] = (1,),
    count: int = 20000,
    wait: float = 2.0,
    perf: bool = False,
) -> Dict[str, Any]:
    """Per mode of writing and number of sockets: ns of one write; and what the programs of these names (if none
    is named, all new ones) took per call. command: None for no tool at all."""
    before = set(bpf_objects.ids(bpf_objects.PROG_GET_NEXT_ID))
    attachments = bpf_objects.Attachments(perf)
    process = None
    if command is not None:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        last, changed = 0, time.monotonic()
        while time.monotonic() - changed < (wait if last else 120) and process.poll() is None:
            time.sleep(0.02)
            found = attachments.count(process.pid)
            if found != last:
                last, changed = found, time.monotonic()
        if process.poll() is not None or not last:
            raise SystemExit(f"{' '.join(command)}: was not attached")
    figures: Dict[str, Any] = {}
    try:
        for mode in ("nodelay", "cork"):
            figures[mode] = {str(number): writes(mode, number, count) for number in sockets}
        if process is not None:
            figures["programs"] = counted(before, programs, sockets, count)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return figures


def writes(mode: str, sockets: int, count: int) -> float:
    done = subprocess.run(
        [WRITES, mode, str(sockets), str(max(count, 3 * sockets))], stdout=subprocess.PIPE, check=True
    )
    return float(done.stdout)


def counted(before: Any, names: Sequence[str], sockets: Sequence[int], count: int) -> List[Dict[str, Any]]:
    """Time per call of each program that has come since, while writes of a mode run."""
    rows: List[Dict[str, Any]] = []
    for number in sockets:
        with open(STATISTICS, "w", encoding="ascii") as file:
            file.write("1")
        start = bpf_objects.programs()
        writes("cork", number, count)
        end = bpf_objects.programs()
        with open(STATISTICS, "w", encoding="ascii") as file:
            file.write("0")
        for key, run in end.items():
            calls = run.calls - start[key].calls if key in start else 0
            if key in before or not calls or (names and run.name not in names):
                continue
            rows.append(
                {
                    "sockets": number,
                    "program": run.name,
                    "calls": calls,
                    "ns": (run.ns - start[key].ns) / calls,
                    "xlated": run.xlated // 8,
                    "jited": run.jited,
                }
            )
    return rows
