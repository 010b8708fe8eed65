"""From exec to attached: the kernel's own word, the appearance of our links."""

from __future__ import annotations

import errno
import os
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

from sockpid import syscall, tracer
from sockpid.collection import Collection, Options
from sockpid.errors import SyscallError

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-I", "-S"]
BPF_LINK_GET_NEXT_ID = 31

Spread = dict[str, float]


def measure(runs: int) -> dict[str, dict[str, Spread]]:
    """Median and spread of wall and CPU time in ms, interleaved: the floor, ours, and loading within a warm process."""
    rows: dict[str, list[tuple[float, float]]] = {"floor": [], "run": [], "attach": []}
    names = {"floor": "floor", "run": "sockpid run: exec to attached", "attach": "load and attach alone, warm process"}
    with tracer.Tracer.open(Options()) as probe:
        links = sum(attached.link is not None for attached in probe.collection.hooks)
    for _ in range(runs):
        rows["floor"].append(floor())
        rows["run"].append(exec_to_attached(links))
        rows["attach"].append(attach())
    return {
        names[key]: {"wall_ms": spread([w for w, _ in values]), "cpu_ms": spread([c for _, c in values])}
        for key, values in rows.items()
    }


def spread(values: list[float]) -> Spread:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def floor() -> tuple[float, float]:
    """A Python that imports ctypes and ends: nothing written in Python can be faster."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([*PYTHON, "-c", "import ctypes, struct, os, mmap"], check=True)
    after = os.times()
    wall = (time.perf_counter() - start) * 1000
    # os.times() counts in clock ticks: good for a median of many runs, not for one
    cpu = (after.children_user + after.children_system - before.children_user - before.children_system) * 1000
    return wall, cpu


def exec_to_attached(expected: int) -> tuple[float, float]:
    """Wall and CPU time until the last of `expected` links exists."""
    have = link_ids()
    start = time.perf_counter()
    with subprocess.Popen(
        [*PYTHON, str(ROOT / "runtime"), "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as probe:
        try:
            while len(link_ids() - have) < expected:
                if probe.poll() is not None or time.perf_counter() - start > 30:
                    raise SyscallError("exec to attached", errno.ETIMEDOUT, "the probe never attached by BPF links")
                time.sleep(0.0002)
            wall = (time.perf_counter() - start) * 1000
            cpu = int(Path(f"/proc/{probe.pid}/schedstat").read_text().split()[0]) / 1e6
        finally:
            probe.terminate()
            probe.wait(30)
    return wall, cpu


def attach() -> tuple[float, float]:
    """Maps, programs and links in a process that has everything imported and parsed."""
    found = tracer.Tracer.open(Options())
    image = tracer.load_image(found.kernel.arch.byte_order)
    found.close()
    start, cpu = time.perf_counter(), time.process_time()
    collection = Collection.attach(image, found.offsets, Options())
    result = (time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000
    collection.close()
    return result


def link_ids() -> set[int]:
    """Ids of all BPF links in the system."""
    ids: set[int] = set()
    attr = bytearray(8)
    while len(ids) < 1 << 16:
        try:
            syscall.bpf("BPF_LINK_GET_NEXT_ID", BPF_LINK_GET_NEXT_ID, attr)
        except SyscallError as error:
            if error.errno == errno.ENOENT:
                break
            raise
        (found,) = struct.unpack_from("=I", attr, 4)
        ids.add(found)
        struct.pack_into("=I", attr, 0, found)
    return ids
