"""Plays a plan somewhere and judges it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import place
from .field import record
from .history import History, hard_operations
from .judge import BEHIND, LATER, SLACK, Judge
from .plan import Plan
from .verdict import Verdict

GUEST_SLACK = 10_000_000
"""A guest is emulated: between two looks at its clocks there may be milliseconds."""
GUEST_LATER = 120_000_000_000
"""And its probe may be minutes behind."""


@dataclass(frozen=True)
class Somewhere:
    """Where storms are played, and how the probe is run. kernel None: on this machine."""

    kernel: str | None = None
    append: str = ""
    smp: int = 2
    attach: str | None = None
    deny: str | None = None

    def arguments(self) -> list[str]:
        given = {"attach": self.attach, "deny": self.deny}
        return [f"--probe={word}" for name, value in given.items() if value for word in (f"--{name}", value)]

    def play(self, arguments: Sequence[str]) -> place.Played:
        given = [*arguments, *self.arguments()]
        return place.in_guest(self.kernel, self.append, self.smp, given) if self.kernel else place.natively(given)

    def name(self) -> str:
        """What results are entered under."""
        words = [self.kernel or f"{os.uname().release.partition('-')[0]} {os.uname().machine}"]
        words += [word for word in (self.attach, self.append, f"without {self.deny}" if self.deny else "") if word]
        words += [f"{self.smp} CPUs"] if self.kernel and self.smp != 2 else []
        return ", ".join(words)


class Outcome(NamedTuple):
    """What became of one storm."""

    verdict: Verdict
    history: History
    played: place.Played


def judged(played: place.Played, max_sockets: int, slack: int = SLACK, later: int = LATER) -> Outcome:
    """Reads what was played and judges it."""
    hooks = {hook["hook"] for hook in played.doctor.get("hooks", ()) if hook["attached"]}
    release = tuple(int(word) for word in str(played.doctor.get("release", "9.9")).split(".")[:2])
    history = History(record.unpack(played.log), played.phases, hard_operations(hooks, release < (6, 5)))
    judge = Judge(history, max_sockets, slack, later)
    for number in range(min(len(played.events), len(history.phases))):
        judge.events(number, played.lines(number))
    for reason in history.errors:
        judge.verdict.fault("(storm)", reason)
    return Outcome(judge.verdict, history, played)


def storm(plan: Plan, where: Somewhere) -> Outcome:
    """Plays a plan and judges it."""
    played = where.play(plan.arguments())
    slack, later = (GUEST_SLACK, GUEST_LATER) if where.kernel else (SLACK, BEHIND if played.lost else LATER)
    return judged(played, plan.max_sockets, slack, later)
