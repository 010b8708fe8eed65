"""The second witness: does the process that an event names have the socket open, and who else has?

The first witness is the probe, which saw the process use the socket. /proc knows nothing of that, but who holds a
socket now. Where the two contradict one another - the named process lives, and does not have the socket open that
somebody else has - the socket was handed on and is used in a way that no hook sees, or it was used by a process that
never had it (on behalf of another, inside the kernel).

What this costs is bounded: looks at /proc take SHARE of the time at most. What there was no time for is unchecked.
"""

from __future__ import annotations

import os
import time

from . import descriptors, kernel, proc
from .named import NamedTuple
from .uapi import CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Optional, Tuple

SHARE = 0.05
BURST_SECONDS = 0.2
"""So much may be spent at once, after a pause."""

KEEP_SECONDS = 1.0
"""So long it is believed that a process has a socket open."""

CHEAP_SECONDS = 0.0005
"""Processes that were looked into in less are not made to wait for those with thousands of descriptors."""

TABLES = 4096
"""Processes of which is known what they have open; then all are forgotten."""


class Table(NamedTuple):
    """What a process had open. at: time.monotonic(). start_ticks: None if it is gone, or may not be looked into. took:
    seconds to find out."""

    at: float
    start_ticks: Optional[int]
    inodes: FrozenSet[int]
    took: float


class Witness:
    """Asks /proc, and remembers for a while.

    whole: every process can be looked into. Where that is not so, nobody can be said to be the only one.
    """

    def __init__(self) -> None:
        needed = 1 << CAP_SYS_PTRACE | 1 << CAP_DAC_READ_SEARCH
        self.whole = kernel.effective_capabilities() & needed == needed and proc.in_initial_pid_namespace()
        self._tables: Dict[int, Table] = {}
        self._opened: Dict[int, Tuple[proc.Holder, ...]] = {}
        self._opened_ns = -1
        self._credit = BURST_SECONDS
        self._credited = time.monotonic()

    def holds(self, pid: int, start_ns: int, inode: int) -> Optional[bool]:
        """Has this process the socket open? None if that could not be looked at, or the process is gone."""
        now = time.monotonic()
        table = self._tables.get(pid)
        if table is not None and now - table.at < KEEP_SECONDS:
            if inode in table.inodes:
                return True
            if table.start_ticks is None:
                return None
        if not self._may(now, table is None or table.took < CHEAP_SECONDS):
            return None
        table = self._look_into(pid, now)
        self._spend(now)
        if table.start_ticks is None or not 0 <= table.start_ticks - proc.ticks_of(start_ns) <= 1:
            return None
        return inode in table.inodes

    def holders(self, inode: int, since_ns: int) -> Optional[Tuple[proc.Holder, ...]]:
        """Who has a socket open, the oldest process first, as of since_ns (CLOCK_MONOTONIC) or later. None if there was
        no time to look."""
        if self._opened_ns < since_ns:
            now = time.monotonic()
            if not self._may(now):
                return None
            self._opened_ns = kernel.monotonic_ns()
            self._opened = descriptors.look().holders
            self._spend(now)
        return self._opened.get(inode, ())

    def _look_into(self, pid: int, now: float) -> Table:
        ticks = proc.start_ticks(pid)
        inodes: FrozenSet[int] = frozenset()
        try:
            os.listdir(f"/proc/{pid}/fd")  # may we look?
            inodes = frozenset(proc.socket_inodes(pid))
        except OSError:
            ticks = None
        if len(self._tables) >= TABLES:
            self._tables.clear()
        table = self._tables[pid] = Table(now, ticks, inodes, time.monotonic() - now)
        return table

    def _may(self, now: float, is_cheap: bool = False) -> bool:
        self._credit = min(BURST_SECONDS, self._credit + (now - self._credited) * SHARE)
        self._credited = now
        return self._credit > (-BURST_SECONDS if is_cheap else 0)

    def _spend(self, since: float) -> None:
        self._credit -= time.monotonic() - since
