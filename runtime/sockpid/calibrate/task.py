"""The steps of a calibration that find members of struct task_struct."""

from __future__ import annotations

import os
from typing import Callable, List, Tuple

from sockpid.errors import CalibrationError
from sockpid.offsets.calibration import Sample, places
from sockpid.subjects import workers
from sockpid.subjects.peek import Peek, pass_state

from .findings import Findings

SIZE = 16384
COMM, FLAGS, LEADER, START = (f"struct task_struct.{n}" for n in ("comm", "flags", "group_leader", "start_boottime"))


def find_task(findings: Findings, peek: Peek, children: List[workers.Child], thread: workers.Thread) -> None:
    """Names of our own choice, flags and start as /proc has them; the leader is the main thread's task."""
    main = f"{os.getpid()}/task/{os.getpid()}"
    before = workers.task(main).comm
    workers.rename(main)
    try:
        first = _look(peek, pass_state, main, peek.me)
        seen = [(first, first[0])]
        for child in children:
            task = _look(peek, child.pass_state, child.thread, child.id)
            seen.append((task, task[0]))
        seen.append((_look(peek, thread.pass_state, thread.thread, thread.id), first[0]))
    finally:
        with open(f"/proc/{main}/comm", "wb") as file:
            file.write(before)
    samples = []
    for (_, memory, said), leader in seen:
        comm = findings.number(said.comm.ljust(16, b"\0"))
        samples.append(Sample(memory, {COMM: {comm}, FLAGS: {said.flags}, LEADER: {leader}, START: said.start}))
    findings.search(samples, COMM, 16, range(SIZE), 1)
    findings.search(samples, FLAGS, 4, range(SIZE))
    findings.search(samples, LEADER, findings.arch.pointer_size, range(SIZE))
    _start(findings, samples)


def _look(peek: Peek, step: Callable[[], None], thread: str, who: int) -> Tuple[int, bytes, workers.Task]:
    """A task's address, its memory and what /proc says of it, which must not have changed meanwhile."""
    for _ in range(10):
        seen = workers.task(thread)
        records = peek.capture(step, thread=who)
        memory = peek.read(records[0].task, SIZE) if records else b""
        if memory and workers.task(thread) == seen:
            return records[0].task, memory, seen
    raise CalibrationError(f"the task of thread {thread} could not be looked at", [])


def _start(findings: Findings, samples: List[Sample]) -> None:
    """Two clocks note the start: CLOCK_MONOTONIC and, right after, CLOCK_BOOTTIME (Linux: kernel/fork.c, copy_process).

    They differ by the time that the machine was suspended; if it never was, by the time between the two readings.
    """
    found = places(samples, START, 8, findings.order, 8, range(SIZE))
    if len(found) == 2:
        one, other = ([findings.number(s.memory[at : at + 8]) for s in samples] for at in found)
        later = sum(a > b for a, b in zip(other, one)) - sum(a < b for a, b in zip(other, one))
        if abs(later) == sum(a != b for a, b in zip(other, one)) > len(samples) // 2:
            found = found[1:] if later > 0 else found[:1]
    within = range(found[0], found[0] + 8) if len(found) == 1 else range(SIZE)
    findings.search(samples, START, 8, within)
