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

from sockpid.host import descriptors, kernel, proc
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, FrozenSet, Optional, Set, Tuple

SHARE = 0.05
BURST_SECONDS = 0.2
"""So much may be spent at once, after a pause."""

KEEP_SECONDS = 1.0
"""So long it is believed that a process has a socket open."""

CHEAP_SECONDS = 0.0005
"""Processes that were looked into in less are not made to wait for those with thousands of descriptors."""

TABLES = 4096
"""Processes of which is known what they have open; then all are forgotten."""


def begin(say: Callable[[str], None]) -> Optional[Witness]:
    """A witness, or None where there can be none: elsewhere than in the initial pid namespace the ids in /proc are not
    those of the events. say: told what it cannot see."""
    if not proc.in_initial_pid_namespace():
        return None
    lacking = descriptors.missing_capabilities()
    if lacking:
        say(f"other users' processes are not asked for the sockets that they have open: needs {' and '.join(lacking)}")
    return Witness(not lacking)


class Table(NamedTuple):
    """What a process had open. at: time.monotonic(). at_ns: the same, CLOCK_MONOTONIC. inodes: None if it is gone, or
    may not be looked into. took: seconds to find out."""

    at: float
    at_ns: int
    inodes: Optional[FrozenSet[int]]
    took: float


class Witness:
    """Asks /proc, and remembers for a while.

    whole: every process can be looked into. Where that is not so, nobody can be said to be the only one.
    """

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self._tables: Dict[Tuple[int, int], Table] = {}
        """By pid and start."""
        self._absent: Set[Tuple[int, int, int]] = set()
        """Processes and inodes of sockets that they did not have open when they were last looked into."""
        self._opened: Dict[int, Tuple[proc.Holder, ...]] = {}
        self._opened_ns = -1
        self._credit = BURST_SECONDS
        self._credited = time.monotonic()

    def holds(self, pid: int, start_ns: int, inode: int, since_ns: int = 0) -> Optional[bool]:
        """Has this process the socket open, as of since_ns (CLOCK_MONOTONIC) or later? None if that could not be looked
        at, or the process is gone. Who was seen not to have it does not get it back for want of time."""
        now = time.monotonic()
        table = self._tables.get((pid, start_ns))
        if table is not None and now - table.at < KEEP_SECONDS and table.at_ns >= since_ns:
            if table.inodes is None:
                return None
            if inode in table.inodes:
                return True
        place = pid, start_ns, inode
        if not self._may(now, table is None or table.took < CHEAP_SECONDS):
            return False if place in self._absent else None
        table = self._look_into(pid, start_ns, now)
        self._spend(now)
        if table.inodes is None:
            return None
        if inode in table.inodes:
            self._absent.discard(place)
            return True
        if len(self._absent) >= TABLES:
            self._absent.clear()
        self._absent.add(place)
        return False

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

    def some_holders(self, inode: int, since_ns: int = 0) -> Tuple[proc.Holder, ...]:
        """Those who had a socket open when all processes were last looked at, and have it still, as of since_ns: where
        there is no time to look at all again, better than nothing. There may be others."""
        known = self._opened.get(inode, ())
        return tuple(one for one in known if self.holds(one.pid, proc.ns_of(one.start_ticks), inode, since_ns))

    def _look_into(self, pid: int, start_ns: int, now: float) -> Table:
        if len(self._tables) >= TABLES:
            self._tables.clear()
        at_ns = kernel.monotonic_ns()
        inodes = _sockets(pid, start_ns)
        table = self._tables[pid, start_ns] = Table(now, at_ns, inodes, time.monotonic() - now)
        return table

    def _may(self, now: float, is_cheap: bool = False) -> bool:
        self._credit = min(BURST_SECONDS, self._credit + (now - self._credited) * SHARE)
        self._credited = now
        return self._credit > (-BURST_SECONDS if is_cheap else 0)

    def _spend(self, since: float) -> None:
        self._credit -= time.monotonic() - since


def _sockets(pid: int, start_ns: int) -> Optional[FrozenSet[int]]:
    """Inodes of the sockets that a process has open. None if it is gone, or may not be looked into."""
    ticks = proc.start_ticks(pid)
    if ticks is None or not 0 <= ticks - proc.ticks_of(start_ns) <= 1:
        return None
    try:
        os.listdir(f"/proc/{pid}/fd")  # may we look?
    except OSError:
        return None
    return frozenset(proc.socket_inodes(pid))
