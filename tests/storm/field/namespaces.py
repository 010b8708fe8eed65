"""Network namespaces that the storm makes. They end with their last process or socket."""

from __future__ import annotations

import contextlib
import os

from tests.accuracy.field import processes

from .process import Process

RTO_MIN_US = "/proc/sys/net/ipv4/tcp_rto_min_us"


def enter(process: Process) -> None:
    """Moves a process without listeners to a network namespace of its own. What it holds stays where it is.

    Where the kernel lets one say so (Linux 6.11), timeouts there are short: more retransmits in a life.
    """
    processes.own_network()
    process.netns = os.stat("/proc/self/ns/net").st_ino
    process.fixed = True
    with contextlib.suppress(OSError), open(RTO_MIN_US, "w", encoding="ascii") as file:
        file.write(str(process.random.choice((20000, 60000, 200000))))
