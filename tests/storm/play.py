"""Plays a plan somewhere and judges it."""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.place import Json, Played, Somewhere

from .field import record
from .history import History, hard_operations
from .judge import BEHIND, LATER, SLACK, Judge
from .plan import Plan
from .verdict import Verdict

OVERRUN = "they come faster than they are read"
"""Why a start may be refused: nothing can be proved then."""
GUEST_SLACK = 10_000_000
"""A guest is emulated: between two looks at its clocks there may be milliseconds."""
GUEST_LATER = 120_000_000_000
"""And its probe may be minutes behind."""


class Outcome(NamedTuple):
    """What became of one storm."""

    verdict: Verdict
    history: History
    played: Played


def _phases(played: Played) -> list[Json]:
    """What happened to the probe, and to the storm itself."""
    phases = list(played.lines("phases."))
    if played.status or "Traceback" in played.stderr:
        clock = phases[-1] if phases else {"mono": 0, "real": 0}
        said = f"the storm itself failed, status {played.status}: {played.stderr[-2000:]}"
        phases.append({**clock, "what": "error", "reason": said})
    return phases


def judged(played: Played, max_sockets: int, slack: int = SLACK, later: int = LATER) -> Outcome:
    """Reads what was played and judges it."""
    hooks = {hook["hook"] for hook in played.doctor.get("hooks", ()) if hook["attached"]}
    release = tuple(int(word) for word in str(played.doctor.get("release", "9.9")).split(".")[:2])
    log = record.unpack(played.files.get("storm.log", b""))
    history = History(log, _phases(played), hard_operations(hooks, release < (6, 5)))
    judge = Judge(history, max_sockets, slack, later)
    for number, content in enumerate(played.contents("events.")[: len(history.phases)]):
        judge.events(number, map(json.loads, content.splitlines()))
    for reason in history.errors:
        if OVERRUN in reason and "wrong values" not in reason:
            judge.verdict.refused += 1
        else:
            judge.verdict.fault("(storm)", reason)
    return Outcome(judge.verdict, history, played)


def storm(plan: Plan, where: Somewhere) -> Outcome:
    """Plays a plan and judges it."""
    played = where.play("storm", plan.arguments())
    slack, later = (GUEST_SLACK, GUEST_LATER) if where.kernel else (SLACK, BEHIND if played.lost else LATER)
    return judged(played, plan.max_sockets, slack, later)
