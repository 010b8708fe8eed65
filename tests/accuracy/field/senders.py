"""Who sends, and what else runs at that moment: the naive answer depends on whom the timer interrupts."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Callable, Dict

from . import processes, sockets
from .filters import lossy
from .processes import me, rename
from .scenario import SECONDS, Run, scenario

Body = Callable[[Run], None]


def sleep(run: Run) -> None:
    run.rest()


def spin(_run: Run) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pass


def owner(run: Run, peer: sockets.Address, count: int, family: str, afterwards: Body = sleep, comm: str = "") -> None:
    """The ordinary process: connects, sends, and does something else while the kernel retransmits."""
    rename(comm or f"acc-{os.getpid()}")
    opened = [sockets.connect(peer, family) for _ in range(count)]
    for each in opened:
        run.tell(each, [me()])
        sockets.send_two(each)
    afterwards(run)
    for each in opened:
        run.count(each)


def owners(run: Run, family: str = "inet", afterwards: Body = sleep, processes: int = 8) -> None:
    peer = sockets.listener(family)
    for share in run.shares(processes):
        run.spawn(owner, run, peer.getsockname(), share, family, afterwards)
    run.wait()


@scenario("the owner sleeps")
def asleep(run: Run) -> None:
    owners(run)


@scenario("the owner sleeps; IPv6")
def asleep_inet6(run: Run) -> None:
    owners(run, "inet6")


@scenario("the owner sleeps; IPv4 through an IPv6 socket")
def asleep_mapped(run: Run) -> None:
    owners(run, "mapped")


@scenario("another process keeps every CPU busy")
def cpu_hog(run: Run) -> None:
    def hog(cpu: int) -> None:
        rename("acc-hog")
        os.sched_setaffinity(0, {cpu})
        spin(run)

    for cpu in os.sched_getaffinity(0):
        run.spawn(hog, cpu)
    owners(run)


@scenario("four owners spin")
def owners_spin(run: Run) -> None:
    owners(run, afterwards=spin, processes=4)


@scenario(
    "bulk data, one segment in 16 lost", sockets=12, how=("connect", "send"), kinds=("fast", "rto", "tlp", "other")
)
def bulk_loss(run: Run) -> None:
    """Duplicate acknowledgements: the kernel retransmits while it handles what the receiver sent."""
    peer = sockets.listener(deaf=lossy(16))
    sinks = run.shares(4)
    for share in sinks:
        run.spawn(sink, peer, share)
    for share in sinks:
        run.spawn(source, run, peer.getsockname(), share)
    run.wait()


def sink(listening: socket.socket, count: int) -> None:
    """Reads from so many sockets until they end or fall silent."""
    rename("acc-sink")
    opened: Dict[int, socket.socket] = {}
    for _ in range(count):
        accepted = listening.accept()[0]
        accepted.setblocking(False)
        opened[accepted.fileno()] = accepted
    end = time.monotonic() + SECONDS + 1
    while opened and time.monotonic() < end:
        for number, each in list(opened.items()):
            try:
                if not each.recv(1 << 16):
                    del opened[number]
            except BlockingIOError:
                pass
        time.sleep(0.002)


def source(run: Run, peer: sockets.Address, count: int) -> None:
    """Sends small records at a pace, so that there are many segments and not only much data."""
    rename(f"acc-{os.getpid()}")
    opened = [sockets.connect(peer) for _ in range(count)]
    for each in opened:
        each.setblocking(False)
        run.tell(each, [me()])
    end = time.monotonic() + SECONDS - 0.3
    while time.monotonic() < end:
        for each in opened:
            try:
                for _ in range(4):
                    each.send(b"x" * 1000)
            except BlockingIOError:
                pass
        time.sleep(0.008)
    time.sleep(0.3)


@scenario("a thread sends; the process's name is asked for")
def thread_sends(run: Run) -> None:
    peer = sockets.listener()
    for share in run.shares(4):
        run.spawn(threaded, run, peer.getsockname(), share)
    run.wait()


def threaded(run: Run, peer: sockets.Address, count: int) -> None:
    rename(f"acc-{os.getpid()}")
    opened = [sockets.connect(peer) for _ in range(count)]
    leader = me()

    def send() -> None:
        rename("acc-thread")
        for each in opened:
            run.tell(each, [leader], tids=[processes.tid()])
            sockets.send_two(each)
        run.rest()

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()


@scenario("a process called by what JSON and terminals must not see", sockets=40)
def odd_name(run: Run) -> None:
    peer = sockets.listener()
    for share, comm in zip(run.shares(4), ('a"b\\c', "two\nlines", "\x1b[31m) R (", "näme ☃")):
        run.spawn(owner, run, peer.getsockname(), share, "inet", sleep, comm)
    run.wait()


@scenario("1,200 refused connects beside")
def refused_beside(run: Run) -> None:
    closed = sockets.bound()

    def knock() -> None:
        rename("acc-refused")
        for _ in range(1200):
            with contextlib.suppress(ConnectionRefusedError):
                sockets.connect(closed.getsockname())

    run.spawn(knock)
    owners(run)
