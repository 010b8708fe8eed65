"""A short slice of the storm; `python -m tests.storm` plays as much of it as is asked for."""

from __future__ import annotations

import pytest

from tests.place import Somewhere
from tests.storm.plan import Plan
from tests.storm.play import Outcome, storm

SECONDS = 9.0
PROCESSES = 4
SEEDS = {1: "busy from the start", 2: "calm at first", 3: "restarted", 4: "restarted and kept", 5: "a small map"}


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: SEEDS[seed].replace(" ", "-"))
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return storm(Plan.of(request.param, SECONDS, PROCESSES), Somewhere())


def test_nothing_is_said_that_is_not_so(outcome: Outcome) -> None:
    assert not outcome.verdict.faults, outcome.verdict.examples


def test_there_was_a_storm(outcome: Outcome) -> None:
    """Else nothing above means anything."""
    verdict = outcome.verdict
    assert verdict.events > 500, outcome.played.said
    assert verdict.right > verdict.events / 2
    assert verdict.naive < verdict.events / 4
    assert {"rto", "tlp"} <= set(verdict.kinds)


@pytest.mark.parametrize("found", Plan.kept())
def test_what_was_found_once(found: str) -> None:
    verdict = storm(Plan.kept()[found], Somewhere()).verdict
    assert not verdict.faults, verdict.examples
    assert verdict.events > 100
