"""Times of day of events: in the events' order, and right after the clock was set."""

from __future__ import annotations

import time

import pytest

from sockpid.host.wall_clock import TOLERANCE, WallClock


def test_the_offset_is_the_same_until_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    found = clock.offset()
    before, after = time.time_ns() - time.monotonic_ns(), time.time_ns() - time.monotonic_ns()
    assert min(before, after) - TOLERANCE <= found <= max(before, after) + TOLERANCE

    seconds = 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5 * seconds)
    offsets = []
    for difference in (100, 126, 74, 100 + TOLERANCE, 100 - TOLERANCE, -3600 * seconds, 7 - 3600 * seconds):
        monkeypatch.setattr(time, "time_ns", lambda difference=difference: 90 * seconds + difference)
        offsets.append(clock.offset() - 85 * seconds)
    assert offsets == [100, 100, 100, 100, 100, -3600 * seconds, -3600 * seconds]


def test_what_came_between_the_clocks_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is taken off its CPU for five milliseconds while it reads the clocks, once or again and again."""
    clock = WallClock()
    monkeypatch.setattr(time, "time_ns", lambda: 100 * 10**9)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10 * 10**9)
    assert clock.offset() == 90 * 10**9
    readings = iter([10 * 10**9, 10 * 10**9 + 5 * TOLERANCE, 10 * 10**9, 10 * 10**9])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(readings))
    assert clock.offset() == 90 * 10**9
    moment = iter(range(10 * 10**9, 11 * 10**9, 5 * TOLERANCE))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(moment))
    assert clock.offset() == 90 * 10**9
