"""The self-check where this process gets no time of the CPU for seconds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sockpid import deaf, event, selfcheck
from sockpid.collection import Options
from sockpid.tracer import Tracer


def test_a_host_that_stands_still_for_seconds_gets_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing still beyond the time limit: nothing is wrong, all is late."""
    others: list[event.Event] = []
    pairs: list[deaf.Pair] = []
    made = deaf.Pair.__init__

    def init(pair: deaf.Pair, family: str) -> None:
        pairs.append(pair)
        made(pair, family)

    monkeypatch.setattr(deaf.Pair, "__init__", init)
    with Tracer.open(Options(), None) as tracer:
        read = tracer.events
        standing = iter([3.3])

        def late(seconds: float) -> Any:
            time.sleep(next(standing, 0))
            return read(seconds)

        monkeypatch.setattr(tracer, "events", late)
        results = selfcheck.run(tracer, others, timeout=0.2)
    assert [result for result in results if not result.ok] == []
    assert len([pair for pair in pairs if pair.family in deaf.FAMILIES]) == 2 * len(deaf.FAMILIES)
    assert not [seen for seen in others for pair in pairs if pair.is_of(seen)]
