"""Runs in the guest: plays a list of jobs (/run/jobs.json) and leaves their figures in /run/result/figures.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), "/sockpid/runtime"]

import hook  # noqa: E402 - the path comes first
import watch  # noqa: E402

JOBS = {"watch": watch.watch, "floor": watch.floor, "hook": hook.measure}


def main() -> int:
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    with open("/sys/fs/cgroup/cgroup.subtree_control", "w", encoding="ascii") as file:
        file.write("+memory")
    with open("/run/jobs.json", encoding="utf-8") as file:
        jobs = json.load(file)
    figures = []
    for name, kind, runs, arguments in jobs:
        for _ in range(runs):
            try:
                figures.append([name, JOBS[kind](**arguments)])
            except (SystemExit, OSError) as error:
                figures.append([name, {"failed": str(error)}])
            with open("/run/result/figures.json", "w", encoding="utf-8") as file:
                json.dump(figures, file)
            print(name, json.dumps(figures[-1][1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
