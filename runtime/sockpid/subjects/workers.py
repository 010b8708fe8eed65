"""Tasks of our own, made for being looked at: processes and a thread with random names that pass a probe on demand."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from typing import List, NamedTuple

from sockpid import syscall, uapi
from sockpid.bpf.tracefs import Undisturbed
from sockpid.host import kernel

from .peek import pass_state, self_id


class Child:
    """A process of our own, forked, in a network namespace of its own if possible. Passes peek.STATE on demand."""

    def __init__(self) -> None:
        order, self._order = os.pipe()
        self._done, done = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._order)
                os.close(self._done)
                _serve(order, done)
            finally:
                os._exit(0)
        os.close(order)
        os.close(done)
        self.netns = os.stat(f"/proc/{self.pid}/ns/net").st_ino if os.read(self._done, 1) == b"n" else None
        self.thread = f"{self.pid}/task/{self.pid}"
        self.id = self.pid << 32 | self.pid

    def pass_state(self) -> None:
        os.write(self._order, b"p")
        os.read(self._done, 1)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._order)
        os.close(self._done)


def children(stack: contextlib.ExitStack, many: int) -> List[Child]:
    """So many of them, which end with the stack."""
    made: List[Child] = []
    for _ in range(many):
        with Undisturbed():
            made.append(Child())
            stack.callback(made[-1].close)
    return made


class Thread:
    """A second thread of this process, which passes peek.STATE on demand. Signals are for the first one."""

    def __init__(self) -> None:
        self._order, self._done = threading.Event(), threading.Event()
        self._end = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.Signals)
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._done.wait()

    def _work(self) -> None:
        self.id = self_id()
        self.thread = f"{os.getpid()}/task/{self.id & 0xFFFFFFFF}"
        rename(self.thread)
        while True:
            self._done.set()
            self._order.wait()
            self._order.clear()
            if self._end:
                return
            pass_state()

    def pass_state(self) -> None:
        self._done.clear()
        self._order.set()
        self._done.wait()

    def close(self) -> None:
        self._end = True
        self._order.set()
        self._thread.join()


def _serve(order: int, done: int) -> None:
    try:
        syscall.unshare(uapi.CLONE_NEWNET)
        namespace = b"n"
    except OSError:
        namespace = b"-"
    rename("self")
    os.write(done, namespace)
    while os.read(order, 1):
        pass_state()
        os.write(done, b".")


def rename(task: str) -> None:
    """Gives a thread ("PID/task/TID") or process ("self") a name of 15 random letters."""
    letters = "".join(random.Random().choice("abcdefghijklmnopqrstuvwxyz") for _ in range(15))
    with open(f"/proc/{task}/comm", "w", encoding="ascii") as file:
        file.write(letters)


class Task(NamedTuple):
    """What /proc says of a thread: name, task_struct.flags, and the nanoseconds since boot in which it was started."""

    comm: bytes
    flags: int
    start: range


def task(thread: str) -> Task:
    """thread: "PID/task/TID"."""
    with open(f"/proc/{thread}/comm", "rb") as file:
        comm = file.read().rstrip(b"\n")
    with open(f"/proc/{thread}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    start = (int(fields[19]) - kernel.time_namespace_ticks()) * tick
    return Task(comm, int(fields[6]), range(start, start + tick))
