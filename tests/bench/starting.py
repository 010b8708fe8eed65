"""Natively: from exec to attached, sockpid and its rivals in turn, by the kernel's own word (guest/watch.py).

The rivals run from their packages as these are unpacked, with the 6.1 headers for bcc. What needs kprobes or fentry
has no place on a kernel that has neither, and says so.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.vm import cache

from . import machine, peers
from .machine import GUEST
from .raised import TARGET_PYTHON

ROOT = Path(__file__).parents[2]
TRACEFS = "/sys/kernel/tracing"
MODULES = Path("/lib/modules")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
KEPT = ("cpu_ms", "wall_ms", "peak_mib", "private_mib")
PRINT_BT = 'tracepoint:tcp:tcp_retransmit_skb { printf("%d\\n", pid); }'

Figures = dict[str, Any]


def unpacked() -> Path:
    """The rivals' packages, unpacked in the lab's cache."""
    debs = peers.debs()
    root = cache.directory("peers", "root")
    with cache.locked(root.parent):
        for deb in debs:
            done = root / f".{deb.name}"
            if not done.exists():
                subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
                done.touch()
    return root


def commands(root: Path) -> Mapping[str, tuple[list[str], bool]]:
    """Per tool its command, and whether it attaches by perf events without programs."""
    python = TARGET_PYTHON if Path(TARGET_PYTHON).exists() else sys.executable
    return {
        "sockpid run": ([python, "-I", "-S", str(ROOT / "runtime/__main__.py"), "run"], False),
        "libbpf-tools tcpstates": ([f"{root}/usr/sbin/tcpstates"], False),
        "perf trace": (["perf", "trace", "-e", "tcp:tcp_retransmit_skb"], True),
        "bpftrace, the tracepoint alone": ([f"{root}/usr/bin/bpftrace", "-e", PRINT_BT], False),
        "bcc tcpretrans": ([python, f"{root}/usr/sbin/tcpretrans-bpfcc"], False),
    }


def measure(runs: int) -> Figures:
    """Per tool the median and spread of KEPT, or why there are none. Mounts tracefs if need be."""
    root = unpacked()
    os.environ["LD_LIBRARY_PATH"] = f"{root}/{LIBRARIES}"
    os.environ["PYTHONPATH"] = f"{root}/usr/lib/python3/dist-packages"
    mount(root)
    sys.path.insert(0, str(GUEST))
    if TYPE_CHECKING:
        from .guest import watch
    else:  # as in the guest
        import watch

    rows: dict[str, list[dict[str, float]]] = {name: [] for name in commands(root)}
    failed: dict[str, str] = {}
    floor = [TARGET_PYTHON, "-I", "-S", "-c", "import ctypes, struct, os, mmap"]
    rows["python3 -I -S with ctypes"] = []
    for _ in range(runs):
        rows["python3 -I -S with ctypes"].append(in_ms(watch.floor(floor)))
        for name, (command, perf) in commands(root).items():
            if name not in failed:
                try:
                    rows[name].append(in_ms(watch.watch(command, perf)))
                except SystemExit as error:
                    failed[name] = str(error)[-300:]
    figures: Figures = {name: {"failed": why} for name, why in failed.items()}
    for name, values in rows.items():
        if name not in failed:
            figures[name] = {key: spread([row[key] for row in values if key in row]) for key in KEPT}
    return figures


def mount(root: Path) -> None:
    """tracefs, and the headers where bcc looks for those of the running kernel: in our mount namespace alone."""
    if not Path(TRACEFS, "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "none", TRACEFS], check=True)
    release = machine.kernel().package.release
    for place in (Path("/usr/src"), MODULES):
        place.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", root / "usr/src", "/usr/src"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", MODULES], check=True)
    running = MODULES / os.uname().release
    running.mkdir()
    (running / "build").symlink_to(f"/usr/src/linux-headers-{release}")
    (running / "source").symlink_to(f"/usr/src/linux-headers-{release.rpartition('-cloud')[0]}-common")


def in_ms(figures: Mapping[str, Any]) -> dict[str, float]:
    return {**figures, "cpu_ms": figures["cpu_s"] * 1000, "wall_ms": figures["wall_s"] * 1000}


def spread(values: list[float]) -> dict[str, float] | None:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None
