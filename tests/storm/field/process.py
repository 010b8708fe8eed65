"""A process of the storm: what it holds, its children, and the loop that takes one random step after another."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import random
import signal
import socket
import struct
import sys
import time
from time import monotonic_ns
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from tests.accuracy.field import filters, processes, sockets

from . import held as tcp
from . import record
from .held import Address, Held
from .kinds import KINDS

RENEWED = 1500
"""A listener that nobody accepts from gives way to another one after so many connections; the one before it is closed,
which resets what is left of its connections."""


CHILDREN = (3, 2)
"""So many children at once, by generation."""

CALM = 20
"""So many times as long a process rests while all is to be calm."""
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int) -> None:
    """Nothing of a storm outlives it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class Stage(NamedTuple):
    """What all processes of a storm have in common. ends: memory that they share, see deadline."""

    logs: str
    run: str
    seed: int
    kinds: Tuple[str, ...]
    workers: int
    pool: int
    ends: mmap.mmap
    own_machine: bool
    pause: float

    @property
    def deadline(self) -> int:
        """When all end, CLOCK_MONOTONIC."""
        return int(struct.unpack_from("=Q", self.ends)[0])

    @property
    def calm(self) -> bool:
        """Whether little is to be done as yet."""
        return bool(self.ends[8])


class Process:
    """One process. fixed: its addresses are those that other namespaces have, too."""

    def __init__(self, stage: Stage, name: str, parent: Optional[Process] = None, since: int = 0) -> None:
        self.stage = stage
        self.name = name
        self.random = random.Random(f"{stage.seed}/{name}")
        self.log = record.Log(stage.logs, name)
        self.pool: List[Held] = parent.pool if parent else []
        self.listeners: Dict[str, List[Held]] = parent.listeners if parent else {}
        self.netns: int = parent.netns if parent else os.stat("/proc/self/ns/net").st_ino
        self.fixed: bool = parent.fixed if parent else False
        self.children: Dict[int, str] = {}
        self.ends: Dict[int, int] = {}
        self.inbox: Optional[socket.socket] = None
        self.born = 0
        self.generation: int = parent.generation + 1 if parent else 0
        self.missing: Dict[str, str] = parent.missing if parent else {}
        me = processes.me()
        words = {"pid": me.pid, "ticks": me.start_ticks, "comm": me.comm, "parent": parent.name if parent else None}
        self.log.note(record.BORN, more=json.dumps(words).encode(), since=since)
        if parent is not None:
            inodes = [each.inode for each in self.all_held()]
            for at in range(0, len(inodes), 4000):
                part = inodes[at : at + 4000]
                self.log.note(record.INHERIT, more=struct.pack(f"<{len(part)}Q", *part), since=since)

    def all_held(self) -> List[Held]:
        return self.pool + [each for kept in self.listeners.values() for each in kept]

    # Children

    def fork(self, body: Callable[[Process], None], keep: Optional[List[Held]] = None, pid: int = 0) -> int:
        """A child that keeps so much of the pool and runs body. pid: in a guest, the pid that it is to have.

        Returns its pid, or 0 if it did not get that one.
        """
        if self.generation >= len(CHILDREN) or len(self.children) >= CHILDREN[self.generation]:
            raise OSError("enough children")
        self.born += 1
        name = f"{self.name}-{self.born}"
        at = self.log.begin(record.FORK, more=name.encode())
        parent = os.getpid()
        since = monotonic_ns()
        try:
            if pid:
                with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as file:
                    file.write(str(pid - 1))
            child = os.fork()
        except OSError:
            self.log.end(at, record.FAILED)
            raise
        if child == 0:
            status = 1
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._child(name, parent, since, body, keep, pid)
                status = 0
            except OSError:
                status = 0  # a step that could not be done
            except BaseException:  # whatever it is, it must not run on as a second parent
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        self.log.end(at)
        self.children[child] = name
        return child if pid in (0, child) else 0

    def _child(
        self, name: str, parent: int, since: int, body: Callable[[Process], None], keep: Optional[List[Held]], pid: int
    ) -> None:
        die_with_parent(parent)
        self.log.close()
        if self.inbox is not None:
            self.inbox.close()
        child = Process(self.stage, name, self, since)
        kept = {id(each) for each in (child.pool if keep is None else keep)}
        for each in child.all_held():
            if id(each) not in kept:
                tcp.close(child.log, each)
        child.pool = [each for each in child.pool if id(each) in kept]
        child.listeners = {}
        try:
            if pid in (0, os.getpid()):
                body(child)
        finally:
            child.log.note(record.EXIT)

    def reap(self, block: bool = False) -> None:
        """Waits for children that have ended, or with `block` for all. A child that has its time is killed."""
        for child, due in list(self.ends.items()):
            if block or monotonic_ns() >= due:
                del self.ends[child]
                if child in self.children:
                    self.log.note(record.KILL, more=self.children[child].encode(), since=monotonic_ns())
                    os.kill(child, signal.SIGKILL)
        while self.children:
            child, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            if not child:
                return
            self.ends.pop(child, None)
            failed = int(os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0)
            self.log.note(record.REAPED, 0, failed, self.children.pop(child, "?").encode())

    def kill_later(self, child: int, seconds: float) -> None:
        self.ends[child] = monotonic_ns() + int(seconds * 1e9)

    # Sockets

    def host(self, family: str) -> Address:
        """A local address for a new socket, with a port that the kernel or, in a namespace, we choose."""
        if not self.fixed:
            return sockets.host(family), 0
        address = {"inet": "127.0.0.1", "inet6": "::1", "mapped": "::ffff:127.0.0.1"}[family]
        return address, 6000 + self.random.randrange(200)

    def new(self, family: str, protocol: int = 0, device: bool = False) -> Held:
        """A bound socket of ours. Raises OSError."""
        held = tcp.opened(self.log, family, self.netns, protocol)
        self.pool.append(held)
        if device:
            tcp.bind_to_device(held, "lo")
        held.sock.bind(self.host(family))
        return held

    def listener(self, what: str, family: str, deaf: Optional[filters.Filter], backlog: int = 4096) -> Held:
        """A listener that nobody accepts from, with this filter; the same one for many connections."""
        key = f"{what} {family}"
        kept = self.listeners.setdefault(key, [])
        if not kept or kept[-1].queued >= RENEWED:
            held = tcp.opened(self.log, family, self.netns)
            kept.append(held)
            address = self.host(family)
            held.sock.bind((address[0], 0))
            if deaf is not None:
                tcp.deafen(held, deaf)
            tcp.listen(self.log, held, backlog)
            if len(kept) > 2:
                tcp.close(self.log, kept.pop(0))
        kept[-1].queued += 1
        return kept[-1]

    def some(self, states: Tuple[str, ...] = ("connected",), most: int = 4) -> List[Held]:
        """A few sockets of the pool."""
        fitting = [each for each in self.pool if each.state in states]
        return self.random.sample(fitting, min(len(fitting), self.random.randint(1, most)))

    def drop(self, held: Held, reset: bool = False) -> None:
        """Closes a socket of the pool."""
        self.pool.remove(held)
        tcp.close(self.log, held, reset)

    def drop_all(self) -> None:
        for each in list(self.pool):
            self.drop(each, True)
        for kept in self.listeners.values():
            for each in kept:
                tcp.close(self.log, each)
        self.listeners = {}

    # The loop

    def run(self, steps: int = 0) -> None:
        """Random steps until the storm is over, or so many."""
        kinds = [KINDS[name] for name in self.stage.kinds]
        weights = [each.weight for each in kinds]
        taken = 0
        while monotonic_ns() < self.stage.deadline and not (steps and taken >= steps):
            taken += 1
            self.reap()
            crowded = len(self.pool) - self.stage.pool
            for _ in range(max(0, crowded)):
                self.drop(self.random.choice(self.pool), self.random.random() < 0.8)
            (chosen,) = self.random.choices(kinds, weights)
            with contextlib.suppress(OSError):  # addresses in use, a peer that went away: the log has what was done
                chosen.step(self)
            time.sleep(self.random.random() * self.stage.pause * (CALM if self.stage.calm else 1))

    def end(self) -> None:
        """Leaves nothing behind."""
        self.drop_all()
        self.reap(block=True)
