"""Plays one storm beside the probe: starts workers, restarts the probe as it is told, and collects the logs.

DIRECTORY/storm.log holds all records, phases.jsonl when the probe came and went and what the clocks said,
events.N.jsonl and probe.N.log what the probe printed, doctor.json how it attached itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import mmap
import os
import random
import resource
import signal
import struct
import tempfile
import time
from time import monotonic_ns
from typing import Any, Dict, Iterator, List

from tests.accuracy.field.driver import Probe, doctor
from tests.accuracy.field.processes import fork, rename

from . import ending, handing, noise, opening, record, sockmap, using
from .kinds import KINDS
from .process import Process, Stage, die_with_parent

assert all((ending, noise, opening, sockmap, using))  # imported for the kinds they enter
LIMIT = 60.0
MNT_DETACH = 2
FIRST = -10
"""How nice the probe is in a guest, whose few CPUs it would otherwise lose to what it is to watch."""


class Phases:
    """The file of what happened to the probe, and of what the clocks said."""

    def __init__(self, output: str) -> None:
        self._file = open(os.path.join(output, "phases.jsonl"), "a", encoding="utf-8", buffering=1)

    def say(self, what: str, **other: Any) -> None:
        line: Dict[str, Any] = {"what": what, "mono": monotonic_ns(), "real": time.time_ns(), **other}
        self._file.write(json.dumps(line) + "\n")


def worker(stage: Stage, index: int, parent: int) -> None:
    """One of the processes that the storm begins with."""
    die_with_parent(parent)
    rename(f"storm-w{index}")
    process = Process(stage, f"w{index}")
    handing.open_inbox(process, index)
    process.run()
    process.end()
    process.log.note(record.EXIT)


def burner(stage: Stage, index: int, parent: int) -> None:
    """One of the processes that do nothing but send."""
    die_with_parent(parent)
    rename(f"storm-b{index}")
    process = Process(stage, f"b{index}")
    cpus = sorted(os.sched_getaffinity(0))
    noise.burn(process, cpus[index % len(cpus)])
    process.end()
    process.log.note(record.EXIT)


def play(arguments: argparse.Namespace, phases: Phases) -> None:
    chance = random.Random(f"{arguments.seed}/director")
    logs = tempfile.mkdtemp(prefix="storm.")
    ends = mmap.mmap(-1, 4096)
    _set_deadline(ends, arguments.seconds + LIMIT)
    _set_calm(ends, arguments.calm)
    run = f"{os.getpid()}-{arguments.seed}"
    kinds = tuple(arguments.kinds)
    stage = Stage(
        logs,
        run,
        arguments.seed,
        kinds,
        arguments.processes,
        arguments.pool,
        ends,
        arguments.own_machine,
        arguments.pause,
    )
    workers = [fork(functools.partial(worker, stage, index, os.getpid())) for index in range(arguments.processes)]
    me = os.getpid()
    workers += [fork(functools.partial(burner, stage, index, me)) for index in range(arguments.burners)]
    with contextlib.ExitStack() as stack:
        stack.callback(_collect, workers, phases, stage, arguments.output)
        keep = ["--keep", "--pin", stack.enter_context(_pins())] if arguments.keep else []
        time.sleep(arguments.older)
        for number in range(arguments.restarts + 1):
            phases.say("spawn", number=number, keep=arguments.keep)
            probe = Probe(arguments.output, number, [*arguments.probe, *keep], FIRST if arguments.own_machine else 0)
            phases.say("ready", number=number)
            _set_calm(ends, False)
            last = number == arguments.restarts
            if last:
                _set_deadline(ends, arguments.seconds / (arguments.restarts + 1))
            time.sleep(arguments.seconds / (arguments.restarts + 1))
            if last:
                _end(workers, phases)
                time.sleep(0.5)
            phases.say("stop", number=number)
            probe.close()
            phases.say("ended", number=number)
            if not last:
                time.sleep(chance.random() * 0.3)


def _collect(workers: List[int], phases: Phases, stage: Stage, output: str) -> None:
    """Ends what is left of a storm, and puts its logs together."""
    _set_deadline(stage.ends, 0)
    _end(workers, phases)
    record.pack(stage.logs, os.path.join(output, "storm.log"))
    os.rmdir(stage.logs)


@contextlib.contextmanager
def _pins() -> Iterator[str]:
    """A bpf file system of our own, for a probe that is kept: what is pinned there ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory = tempfile.mkdtemp(prefix="storm-pins.")
    if libc.mount(b"bpf", directory.encode(), b"bpf", 0, None):
        raise OSError(ctypes.get_errno(), "mount a bpf file system")
    try:
        yield os.path.join(directory, "storm")
    finally:
        libc.umount2(directory.encode(), MNT_DETACH)
        os.rmdir(directory)


def _set_calm(ends: mmap.mmap, calm: bool) -> None:
    ends[8] = calm


def _set_deadline(ends: mmap.mmap, seconds: float) -> None:
    struct.pack_into("=Q", ends, 0, monotonic_ns() + int(seconds * 1e9))


def _end(workers: List[int], phases: Phases) -> None:
    """Waits for the workers, and ends those that do not end by themselves."""
    due = time.monotonic() + LIMIT
    while workers:
        pid = workers.pop()
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                if status:
                    phases.say("error", reason=f"worker {pid} ended with status {status}")
                break
            if time.monotonic() > due:
                phases.say("error", reason=f"worker {pid} had to be killed")
                os.kill(pid, signal.SIGKILL)
                due += 5
            time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/storm/field", description=__doc__)
    parser.add_argument("--output", required=True, help="directory of the files that are written")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=sorted(KINDS))
    parser.add_argument("--pool", type=int, default=150, help="sockets that a process keeps")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a process rests at most after a step")
    parser.add_argument("--older", type=float, default=1.0, help="seconds that the storm begins before the probe")
    parser.add_argument("--restarts", type=int, default=0, help="of the probe, in between")
    parser.add_argument("--keep", action="store_true", help="a restarted probe takes over from the one before it")
    parser.add_argument("--burners", type=int, default=0, help="processes that only send, without pause")
    parser.add_argument("--calm", action="store_true", help="do little until the probe is ready")
    parser.add_argument("--own-machine", action="store_true", help="nobody else minds what happens to this machine")
    parser.add_argument("--probe", action="append", default=[], help="argument for sockpid; may be repeated")
    arguments = parser.parse_args()
    unknown = set(arguments.kinds) - set(KINDS)
    if unknown:
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}")
    os.makedirs(arguments.output, exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open(os.path.join(arguments.output, "doctor.json"), "w", encoding="utf-8") as file:
        json.dump(doctor(arguments.probe), file)
    phases = Phases(arguments.output)
    try:
        play(arguments, phases)
    except RuntimeError as error:
        phases.say("error", reason=str(error))
    return 0
