"""Is the cost per event, per look-up and per send the same with a thousand sockets as with a million? Real sockets."""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import raised
from .guest.usage import cpu_of
from .rates import statistics

LEVELS = (1_000, 100_000, 1_000_000)
RATE, SECONDS, ROUNDS = 10_000, 3.0, 3
LOOKUPS = 20_000
SPARE_FILES = 256
NEEDED = 6 << 10
"""Bytes of memory that a socket may take in all, with its file and the kernel's entries for it."""

Figures = dict[str, Any]


class Crowd:
    """A growing number of sockets, in as many processes as they need. A connection is two: both ends have used it."""

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self._each = (limit - SPARE_FILES) // 2
        self._members: list[tuple[int, int, int]] = []
        self.sockets = 0

    def grow(self, sockets: int) -> None:
        while self.sockets < sockets:
            pairs = min(self._each, (sockets - self.sockets + 1) // 2)
            orders, told = os.pipe(), os.pipe()
            number = len(self._members)
            child = os.fork()
            if not child:
                try:
                    # Whoever had another's end of a pipe would keep that one from ending.
                    first, second = sorted((orders[0], told[1]))
                    os.closerange(3, first)
                    os.closerange(first + 1, second)
                    os.closerange(second + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
                    _member(number, pairs, orders[0], told[1])
                finally:
                    os._exit(1)
            os.close(orders[0])
            os.close(told[1])
            self._members.append((child, orders[1], told[0]))
            if not os.read(told[0], 1):
                raise RuntimeError("a process with sockets did not come up")
            self.sockets += 2 * pairs

    def send(self) -> None:
        """One write on each connection, process by process."""
        for _, orders, told in self._members:
            os.write(orders, b"x")
            os.read(told, 1)

    def close(self) -> None:
        for child, orders, told in self._members:
            os.close(orders)
            os.close(told)
            os.waitpid(child, 0)


def _member(number: int, pairs: int, orders: int, told: int) -> None:
    opened: list[tuple[socket.socket, socket.socket]] = []
    address = f"127.9.{number // 200}.{number % 200 + 1}"
    with socket.create_server((address, 0), backlog=128) as listener:
        for _ in range(pairs):
            near = socket.create_connection(listener.getsockname())
            opened.append((near, listener.accept()[0]))
    while True:
        for near, _ in opened:
            near.send(b"x")
        for _, far in opened:
            far.recv(16)
        os.write(told, b"x")
        if not os.read(orders, 1):
            return


def level(probe: raised.Run, crowd: Crowd) -> Figures:
    """The least of ROUNDS for each figure: neighbours only add."""
    rng = random.Random(1)
    sockets = probe.sockets()
    rng.shuffle(sockets)
    rounds = [_round(probe, crowd, sockets, rng) for _ in range(ROUNDS)]
    return {"owners": len(sockets), **{name: min(each[name] for each in rounds) for name in rounds[0]}}


def _round(probe: raised.Run, crowd: Crowd, sockets: Sequence[Any], rng: random.Random) -> dict[str, float]:
    before = cpu_of(probe.pid)
    with statistics():
        start, sends = probe.named("tcp_retransmit"), probe.named("tcp_sendmsg")
        fed = raised.feed(probe.program, sockets, RATE, SECONDS)
        crowd.send()
        end, sent = probe.named("tcp_retransmit"), probe.named("tcp_sendmsg")
    time.sleep(0.5)
    reader = cpu_of(probe.pid) - before
    owners = probe.map("socket_to_pid")
    keys = list(owners.keys())
    chosen = [rng.choice(keys) for _ in range(LOOKUPS)]
    started = time.process_time()
    found = sum(owners.lookup(key) is not None for key in chosen)
    spent = time.process_time() - started
    owners.close()
    if found < LOOKUPS * 0.99:
        raise RuntimeError(f"{LOOKUPS - found} of {LOOKUPS} look-ups found nothing")
    return {
        "event_ns": (end.ns - start.ns) / (end.calls - start.calls),
        "send_ns": (sent.ns - sends.ns) / (sent.calls - sends.calls),
        "lookup_ns": spent / LOOKUPS * 1e9,
        "reader_us": reader / fed * 1e6,
    }


def measure(levels: Sequence[int] = LEVELS) -> Figures:
    """Per number of sockets. A level for which the machine has no memory says so."""
    figures: Figures = {}
    crowd = Crowd()
    try:
        entries = 2 << (max(levels) + 1).bit_length()  # an LRU that is nearly full evicts
        with raised.run(["--json", "--no-seed", "--max-sockets", str(entries)]) as probe:
            for sockets in levels:
                available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
                if available < (sockets - crowd.sockets) * NEEDED:
                    figures[str(sockets)] = {"failed": f"{available >> 20} MiB of free memory are too few"}
                    continue
                crowd.grow(sockets)
                figures[str(sockets)] = level(probe, crowd)
                print(sockets, figures[str(sockets)], file=sys.stderr, flush=True)
    finally:
        crowd.close()
    return figures


if __name__ == "__main__":
    print(json.dumps(measure([int(word) for word in sys.argv[1:]] or LEVELS), indent=1))
