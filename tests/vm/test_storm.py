"""A short storm on other kernels."""

from __future__ import annotations

import pytest

from tests.place import Somewhere
from tests.storm.plan import Plan
from tests.storm.play import storm

from .kernels import Guest


@pytest.mark.guests("6.1/amd64")
def test_nothing_is_said_that_is_not_so(guest: Guest) -> None:
    outcome = storm(Plan.of(1, 15.0, 3, slow=True), Somewhere(guest.kernel.name, deny="live-btf"))
    assert outcome.verdict.ok, (outcome.verdict.faults, outcome.verdict.examples)
    assert outcome.verdict.events > 200, outcome.played.said
    assert outcome.verdict.right > outcome.verdict.events / 2
