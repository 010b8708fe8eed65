"""`make soak SECONDS=600`: does it stay as it is? Sockets and processes come and go, real retransmits all the while.

`sockpid run` with all outputs at once, each with somebody at the other end. Sampled: its memory, the blocks that its
Python objects take, descriptors, threads, and entries of the shared map. What it remembers of processes it forgets
after FORGET_SECONDS; from then on nothing may grow, so the last quarter is held against the third. In the end every
event of our sockets is held against what their programs know, and what arrived at each output against what was told.
Only what happens in its own network namespace counts, so that nobody else has a part in it: `unshare --net`. Needs
root; nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sockpid.owner.describe import FORGET_SECONDS
from tests import truth
from tests.bench import receivers, stream_report
from tests.bench.receivers import Receiver

ROOT = Path(__file__).parents[2]
SOCKPID = [sys.executable, "-I", "-S", str(ROOT / "runtime")]
COUNTED = [sys.executable, "-I", "-S", str(ROOT / "tests/bench/counted.py")]
WORKLOAD = [sys.executable, "-I", "-S", str(ROOT / "tests/workload.py")]
KEPT = ("netns", "family", "saddr", "sport", "daddr", "dport", "pid", "comm", "reason", "interrupted_pid")
"""Keys of an event that truth.judge() asks for."""

MEMORY, BLOCKS = "memory of the probe, MB", "blocks of its Python objects"
ENTRIES = "entries of socket_to_pid, of sockets of this test"
GROWTH = {MEMORY: 1.01, BLOCKS: 1.02, ENTRIES: 1.5}
"""How much more the last quarter may hold than the third, if it is warm."""

CHURN = """
import os, socket, time
end = time.monotonic() + {seconds}
listening = socket.create_server(("127.0.0.1", 0), backlog=64)
while time.monotonic() < end:
    child = os.fork()
    if not child:
        for _ in range(40):
            with socket.create_connection(listening.getsockname()) as near, listening.accept()[0] as far:
                near.send(b"x")
                far.recv(1)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.2)
"""


class Probe:
    """`sockpid run` with a thread that keeps what it prints."""

    def __init__(self, arguments: list[str], place: str) -> None:
        """place: a path for the socket of counted.py."""
        self.events: list[dict[str, Any]] = []
        self.said: list[str] = []
        self._place = place
        self._process = subprocess.Popen(
            [*COUNTED, place, "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._ready = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()
        if not self._ready.wait(60):
            raise RuntimeError(f"the probe is not ready: {self.said}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if "dropped" not in event:
                self.events.append({name: event[name] for name in KEPT})

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line.rstrip())
            if "offsets from" in line:
                self._ready.set()

    def blocks(self) -> int:
        """How many pieces of memory Python has given out and not got back."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(60)
            asking.connect(self._place)
            return int(asking.recv(64))

    def finish(self) -> dict[str, Any]:
        """Its summary."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        for thread in self._threads:
            thread.join(60)
        found = [line for line in self.said if line.startswith('sockpid: {"summary"')]
        if status or not found:
            raise RuntimeError(f"the probe ended with {status}: {self.said}")
        summary: dict[str, Any] = json.loads(found[0].partition(": ")[2])
        return summary


@contextlib.contextmanager
def bpffs() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["mount", "-t", "bpf", "none", directory], check=True)
        try:
            yield f"{directory}/sockpid"
        finally:
            subprocess.run(["umount", directory], check=True)


def sample(probe: Probe, pins: str) -> dict[str, float]:
    pid = probe.pid
    status = Path(f"/proc/{pid}/status").read_text()
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    looked = subprocess.run([*SOCKPID, "lookup", "--all", "--json", "--pin", pins], capture_output=True, check=False)
    ours = os.stat("/proc/self/ns/net").st_ino
    entries = [json.loads(line)["netns"] == ours for line in looked.stdout.splitlines()]
    return {
        MEMORY: int(re.findall(r"VmRSS:\s*(\d+)", status)[0]) / 1024,
        BLOCKS: probe.blocks(),
        "its threads": int(re.findall(r"Threads:\s*(\d+)", status)[0]),
        "its descriptors": len(links),
        "its BPF maps": links.count("anon_inode:bpf-map"),
        ENTRIES: sum(entries),
        "the same, of everybody else's sockets": len(entries) - sum(entries),
    }


def churn(seconds: float, each: float = 3.0) -> list[dict[str, Any]]:
    """Two generations of processes at a time, each a second and a half older than the next, until the time is over.
    Returns what they know of their sockets."""
    known: list[dict[str, Any]] = []
    beside = subprocess.Popen([sys.executable, "-I", "-S", "-c", CHURN.format(seconds=seconds)])
    living: collections.deque[subprocess.Popen[str]] = collections.deque()
    end = time.monotonic() + seconds
    arguments = ["--processes", "5", "--hogs", "1", "--copies", "2", "--seconds", str(each), "--name", "soak"]
    while time.monotonic() < end or living:
        if time.monotonic() < end:
            living.append(subprocess.Popen([*WORKLOAD, *arguments], stdout=subprocess.PIPE, text=True))
            time.sleep(each / 2)
        if len(living) > 1 or time.monotonic() >= end:
            known += truth.parse_lines(living.popleft().communicate(timeout=60)[0])
    beside.wait(60)
    return known


def soak(seconds: float) -> dict[str, Any]:
    """Raises RuntimeError if the probe ends early. The caller judges."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        pins = stack.enter_context(bpffs())
        log, journal = (Receiver(receivers.datagrams, f"{directory}/{name}") for name in ("log", "journal"))
        collector = Receiver(receivers.collector)
        reader = Receiver(receivers.reader, f"{directory}/unix")
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        outputs = {
            "json": None,
            f"file:{directory}/events.jsonl,size=1M,keep=2": None,
            f"unix:{directory}/unix": reader,
            f"syslog:{log.place}": log,
            f"journald:{journal.place}": journal,
            f"otlp:{collector.place},interval=2s": collector,
            f"prometheus:127.0.0.1:{port}": None,
        }
        arguments = [word for output in outputs for word in ("--output", output)]
        probe = Probe([*arguments, "--json", "--summary", "--labels", "--label-env", "PATH", "--pin", pins,
                       "--netns", f"pid:{os.getpid()}"], f"{directory}/counted")  # fmt: skip
        over = threading.Event()

        def watch() -> list[dict[str, float]]:
            samples: list[dict[str, float]] = []
            while len(samples) < 4 or not over.wait(seconds / 120):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    answer.read()
                samples.append(sample(probe, pins))
            return samples

        with concurrent.futures.ThreadPoolExecutor() as pool:
            watching = pool.submit(watch)
            known = churn(seconds)
            over.set()
            samples = watching.result()
        summary = probe.finish()
        arrived = {spec.partition(":")[0]: receiver.finish() for spec, receiver in outputs.items() if receiver}
    keys = collections.Counter(truth.key(each) for each in known)
    verdict = truth.judge(probe.events, [each for each in known if keys[truth.key(each)] == 1])
    quarter = len(samples) // 4
    return {
        "seconds": seconds,
        "processes": len({each["pid"] for each in known}),
        "sockets": len(known),
        "outputs": [spec.partition(":")[0] for spec in outputs],
        "events": len(probe.events),
        "right": verdict.right,
        "wrong": len(verdict.wrong),
        "unknown": len(verdict.unknown),
        "naive": verdict.naive_right,
        "lost": summary["lost"],
        "dropped": sum(row["dropped"] for row in summary["outputs"]),
        "arrived": arrived,
        "examples": [*verdict.wrong[:3], *verdict.unknown[:3]],
        "samples": {
            name: [
                *(statistics.mean(each[name] for each in samples[n * quarter : (n + 1) * quarter]) for n in range(4)),
                max(each[name] for each in samples),
            ]
            for name in samples[0]
        },
    }


def complaints(result: dict[str, Any], warm: bool = True) -> list[str]:
    """What is not as it should be. warm: for half of the time it had been running longer than it remembers."""
    found = [f"{result[name]} {name}" for name in ("wrong", "unknown", "lost", "dropped") if result[name]]
    found += [f"{output}: {count} events arrived of {result['events']}" for output, count in result["arrived"].items()
              if count != result["events"]]  # fmt: skip
    for name, (first, _, third, last, _) in result["samples"].items():
        if name in GROWTH:
            if warm and last > third * GROWTH[name]:
                found.append(f"{name} grew from {third:.1f} to {last:.1f} in the last quarter")
        elif name.startswith("its") and last > first + 2:  # a scrape has a descriptor and a thread while it lasts
            found.append(f"{name} grew from {first:.1f} to {last:.1f}")
    if not result["right"]:
        found.append("nothing was retransmitted")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--report", type=Path, help="add the results to this page and the .json beside it")
    arguments = parser.parse_args()
    result = soak(arguments.seconds)
    print(json.dumps(result, indent=1))
    found = complaints(result, warm=arguments.seconds >= 2 * FORGET_SECONDS)
    for line in found:
        print(line, file=sys.stderr)
    if arguments.report and not found:
        stream_report.enter(arguments.report, "soak", {"churn": result})
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
