"""Processes and sockets of a storm, and from when until when something is true of them.

All times are CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

from .field import record

NEVER = 1 << 62


@dataclass(eq=False)
class Program:
    """A process. It lives from `born` at the earliest, surely until `lives`, and is surely gone at `gone`."""

    name: str
    pid: int = 0
    ticks: int = 0
    born: int = 0
    lives: int = 0
    gone: int = NEVER
    killed: int = 0
    names: list[tuple[int, int, str]] = field(default_factory=list)
    """Its names: from when at the earliest, from when for sure, and the name."""

    def comms(self, since: int, until: int) -> set[str]:
        """The names that it may have had within that time."""
        found = set()
        for index, (begin, _, comm) in enumerate(self.names):
            end = self.names[index + 1][1] if index + 1 < len(self.names) else NEVER
            if begin <= until and end >= since:
                found.add(comm)
        return found

    def __repr__(self) -> str:
        return f"{self.name}={self.pid}"


class Use(NamedTuple):
    """begin, end: when it counted. hard: it surely counted, and every hook that is for it saw it."""

    begin: int
    end: int
    program: Program
    operation: int
    hard: bool
    thread: int

    def __repr__(self) -> str:
        name = record.NAMES.get(self.operation, str(self.operation))
        return f"{name} by {self.program} {self.begin}..{self.end}{'' if self.hard else ' (perhaps)'}"


@dataclass
class Hold:
    """A descriptor: open from `maybe` at the earliest, surely from `surely` to `until`, surely no more at `gone`."""

    program: Program
    maybe: int
    surely: int
    until: int = NEVER
    gone: int = NEVER


class Life(NamedTuple):
    """A socket bears a tuple from then on. failed: it did not come to a connection."""

    begin: int
    end: int
    socket: Socket
    device: int
    failed: bool


@dataclass(eq=False)
class Socket:
    """A socket by its inode, which is given to one socket only."""

    inode: int
    uses: list[Use] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    """When its connections began."""
    waited_since: int = NEVER
    """When an accepted one was called, and waited in the queue from then on."""
    lent_since: int = NEVER
    """When others' data may first have left by it (sockmap)."""

    @functools.cached_property
    def hard_ends(self) -> list[tuple[int, int]]:
        """Of uses that surely counted: the end, and the latest begin of all that ended until then."""
        found: list[tuple[int, int]] = []
        latest = 0
        for end, begin in sorted((use.end, use.begin) for use in self.uses if use.hard):
            latest = max(latest, begin)
            found.append((end, latest))
        return found

    def users(self, since: int, until: int) -> list[Use]:
        """All uses that may have been the latest one at some time between since and until."""
        at = bisect.bisect_left(self.hard_ends, (since, 0))
        barrier = self.hard_ends[at - 1][1] if at else 0
        return [use for use in self.uses if use.begin <= until and use.end >= barrier]

    def used_for_sure(self, since: int, until: int) -> list[Use]:
        """All that surely counted between since and until."""
        return [use for use in self.uses if use.hard and use.begin > since and use.end < until]

    def may_hold(self, since: int, until: int) -> set[Program]:
        """Who may have it open at some time between since and until."""
        return {hold.program for hold in self.holds if hold.maybe <= until and hold.gone >= since}

    def surely_hold(self, since: int, until: int) -> set[Program]:
        """Who surely has it open all the time between since and until."""
        return {hold.program for hold in self.holds if hold.surely <= since and hold.until >= until}

    @functools.cached_property
    def end(self) -> int:
        """When surely nobody has it open any more. The kernel may keep it for longer."""
        return max((hold.gone for hold in self.holds), default=NEVER)


class Phase(NamedTuple):
    """One run of the probe."""

    spawn: int
    ready: int
    stop: int
    ended: int
    keep: bool
