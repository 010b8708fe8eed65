"""Runs in the guest: plays a list of jobs (/run/jobs.json) and leaves their figures in /run/result/figures.json."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), "/sockpid/runtime", "/sockpid"]

JOBS = {
    "watch": "watch.watch",
    "floor": "watch.floor",
    "hook": "hook.measure",
    "life": "life.measure",
    "pids": "pids.measure",
    "table": "big_table.measure",
}


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in a shell's background ignores it
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    with open("/sys/fs/cgroup/cgroup.subtree_control", "w", encoding="ascii") as file:
        file.write("+memory")
    subprocess.run(["mount", "-t", "debugfs", "none", "/sys/kernel/debug"], check=True)  # where ply looks for tracefs
    os.makedirs("/var/tmp", exist_ok=True)  # where ply keeps what it found in kallsyms
    os.makedirs("/dev/pts", exist_ok=True)
    subprocess.run(["mount", "-t", "devpts", "none", "/dev/pts"], check=True)
    with open("/run/jobs.json", encoding="utf-8") as file:
        jobs = json.load(file)
    figures = []
    for name, kind, runs, arguments in jobs:
        module, _, function = JOBS[kind].partition(".")
        job = getattr(importlib.import_module(module), function)
        for _ in range(runs):
            try:
                figures.append([name, job(**arguments)])
            except (SystemExit, OSError, subprocess.CalledProcessError) as error:
                figures.append([name, {"failed": str(error)}])
            with open("/run/result/figures.json", "w", encoding="utf-8") as file:
                json.dump(figures, file)
            print(name, json.dumps(figures[-1][1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
