"""Events per second through program, ring buffer, decoder and output, and what happens when there are too many."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from sockpid import syscall, uapi

from . import raised
from .guest.usage import cpu_of

PROCESSES, SOCKETS = 8, 8
Figures = dict[str, Any]


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    fd = syscall.bpf("BPF_ENABLE_STATS", uapi.BPF_ENABLE_STATS, bytearray(struct.pack("=I", 0)))
    try:
        yield
    finally:
        os.close(fd)


def lines(rate: float, seconds: float) -> Figures:
    """`run --json` into a pipe that is read and thrown away. Nothing that was raised is missing in received + dropped +
    lost, or it fails; a host's own retransmits may come on top.
    """
    with (
        subprocess.Popen(["wc", "-l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader,
        raised.run(["--json", "--no-seed", "--duration", "3600"], reader.stdin) as probe,
        raised.owned(PROCESSES, SOCKETS),
    ):
        assert reader.stdin is not None
        assert reader.stdout is not None
        sockets = probe.sockets()
        warm = raised.feed(probe.program, sockets, min(rate or 1000, 1000), 1)  # templates, caches
        time.sleep(0.5)
        before, started = cpu_of(probe.pid), time.monotonic()
        fed = raised.feed(probe.program, sockets, rate, seconds)
        wall = time.monotonic() - started
        time.sleep(1.5)  # what is queued
        cpu = cpu_of(probe.pid) - before
        said = probe.end()
        reader.stdin.close()
        received = int(reader.stdout.read())
    told, lost = (int(n) for n in re.search(r"(\d+) retransmits, \d+ with unknown owner, (\d+) lost", said).groups())  # type: ignore[union-attr] # is there
    dropped = sum(int(n) for n in re.findall(r"output json: (\d+) of", said))
    if received + dropped + lost < warm + fed:
        raise RuntimeError(f"{warm + fed} raised, but {received} received, {dropped} dropped and {lost} lost: {said}")
    return {
        "raised": warm + fed, "told": told, "lost": lost, "dropped": dropped, "received": received, "wall_s": wall,
        "cpu_s": cpu, "cpu_us": cpu / max(1, fed - lost) * 1e6,
    }  # fmt: skip


def sums(seconds: float) -> Figures:
    """`run --count`: the program adds up. As fast as one feeder can."""
    arguments = ["--count", str(seconds / 4), "--json", "--no-seed", "--duration", "3600"]
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader,
        raised.run(arguments, reader.stdin) as probe,
        raised.owned(PROCESSES, SOCKETS),
    ):
        assert reader.stdin is not None
        assert reader.stdout is not None
        sockets = probe.sockets()
        before, started = cpu_of(probe.pid), time.monotonic()
        fed = raised.feed(probe.program, sockets, 0, seconds)
        wall = time.monotonic() - started
        with statistics():
            start = probe.named("tcp_retransmit")
            counted = raised.feed(probe.program, sockets, 0, seconds / 4)
            end = probe.named("tcp_retransmit")
        cpu = cpu_of(probe.pid) - before
        said = probe.end()
        reader.stdin.close()
        rows = [row for line in reader.stdout for row in json.loads(line)["counts"]]
    (lost,) = (int(n) for n in re.findall(r"(\d+) not counted", said))
    return {
        "raised": fed + counted, "summed": sum(row["events"] for row in rows), "lost": lost, "wall_s": wall,
        "fed_per_s": fed / wall, "program_ns": (end.ns - start.ns) / (end.calls - start.calls), "cpu_s": cpu,
        "owners": len({row["pid"] for row in rows}),
    }  # fmt: skip


def measure(seconds: float = 4.0) -> Figures:
    return {
        "json, 20,000 a second": lines(20_000, seconds),
        "json, overload": lines(0, seconds),
        "count, overload": sums(seconds),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
