"""What must not matter: sockets that are no TCP, processes that are busy, and many that come and go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from time import monotonic_ns

from tests.accuracy.field import filters

from . import held as tcp
from . import record
from .kinds import kind
from .opening import connected
from .process import Process

_libc = ctypes.CDLL(None)
NETLINK_XFRM = IPPROTO_TCP = 6


@kind(1)
def netlink(process: Process) -> None:
    """opens, uses and closes NETLINK_XFRM sockets, whose protocol has the number of TCP"""
    with contextlib.ExitStack() as stack:
        for _ in range(process.random.randint(1, 30)):
            each = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM))
            each.setblocking(False)
            with contextlib.suppress(OSError):
                each.recv(100)
            with contextlib.suppress(OSError):
                each.send(bytes(16))


@kind(1)
def raw(process: Process) -> None:
    """opens, uses and closes raw sockets of protocol 6"""
    with contextlib.ExitStack() as stack:
        for family, peer in ((socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1")):
            for _ in range(process.random.randint(1, 10)):
                each = stack.enter_context(socket.socket(family, socket.SOCK_RAW, IPPROTO_TCP))
                each.setblocking(False)
                with contextlib.suppress(OSError):
                    each.connect((peer, 0))
                with contextlib.suppress(OSError):
                    each.send(bytes(20))
                with contextlib.suppress(OSError):
                    each.recv(100)


@kind(0.5)
def busy(process: Process) -> None:
    """a child keeps a CPU busy with sends"""
    peer = process.listener("lossy", "inet", filters.lossy(3))
    cpu = process.random.choice(sorted(os.sched_getaffinity(0)))

    def body(child: Process) -> None:
        os.sched_setaffinity(0, {cpu})
        held = connected(child, peer)
        end = monotonic_ns() + int(child.random.random() * 1e9)
        at = child.log.begin(record.SEND, held.inode)
        while monotonic_ns() < end:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    held.sock.send(b"x")
        child.log.end(at)
        tcp.close(child.log, held, True)

    process.fork(body, [])


def burn(process: Process, cpu: int) -> None:
    """Sends without pause, on one CPU, as long as the storm lasts: a socket that takes no more costs the least."""
    while process.stage.calm:
        time.sleep(0.05)
    os.sched_setaffinity(0, {cpu})
    held = connected(process, process.listener("deaf", "inet", filters.DATA))
    byte, number = ctypes.create_string_buffer(b"x"), held.fileno
    at = process.log.begin(record.SEND, held.inode)
    while monotonic_ns() < process.stage.deadline:
        for _ in range(200):
            _libc.send(number, byte, 1, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    process.log.end(at)


@kind(0.5)
def churn(process: Process) -> None:
    """children that do nothing and end at once"""
    for _ in range(process.random.randint(1, 5)):
        process.fork(lambda child: None, [])
    process.reap(block=not process.ends)
