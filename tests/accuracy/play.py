"""Plays scenarios somewhere and judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.place import Played, Somewhere

from .judge import PROBE, Verdict, attached, judge

SHOWN = 3
"""Examples of each kind of finding."""


class Outcome(NamedTuple):
    """What became of scenarios. ways: how the probe could learn owners, in the scenarios' words."""

    verdicts: Mapping[str, Verdict]
    ways: set[str]
    played: Played

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts.values())


def play(where: Somewhere, scale: float = 1.0, names: Sequence[str] = ()) -> Outcome:
    """Plays these scenarios, or all. scale: times the usual number of sockets. Raises RuntimeError if they failed."""
    arguments = ["--scale", str(scale), *(word for name in names for word in ("--scenario", name))]
    played = where.play("accuracy", arguments)
    if played.status:
        raise RuntimeError(f"{where.name}: status {played.status}: {played.stderr[-2000:]}")
    ways = attached(played.doctor)
    verdicts = judge(played.lines("truth."), played.lines("events."), ways)
    if played.lost:
        verdicts.setdefault(PROBE, Verdict()).odd.append(f"events were lost: {played.said}")
    return Outcome(verdicts, ways, played)


def findings(outcome: Outcome) -> list[str]:
    """What is not as it should be, in words."""
    return [
        f"{scenario}: {what} ({len(found)}): {text}"
        for scenario, verdict in outcome.verdicts.items()
        for what, found in (("wrong", verdict.wrong), ("missed", verdict.missed), ("odd", verdict.odd))
        for text in found[:SHOWN]
    ]
