"""The kernel's time stamps as times of day."""

from __future__ import annotations

import time

from . import kernel

TOLERANCE = 1000000
"""Nanoseconds by which a time of day may be off before it is corrected."""

TRIES = 10
"""How often the clocks are read at most, until nothing comes between."""


class WallClock:
    """What to add to CLOCK_MONOTONIC for CLOCK_REALTIME."""

    def __init__(self) -> None:
        self._offset = 0

    def offset(self) -> int:
        """Nanoseconds. The same each time, so that events keep their order, until the clock was set, or has drifted.

        The two clocks cannot be read at once: their difference is a little another one each time, and a wrong one if
        the process was taken off its CPU in between. So the one is read before and after the other, and what took
        long is not believed.
        """
        for _ in range(TRIES):
            before, wall, after = kernel.monotonic_ns(), time.time_ns(), kernel.monotonic_ns()
            offset = wall - (before + after) // 2
            if abs(offset - self._offset) <= TOLERANCE:
                break
            if after - before < TOLERANCE:
                self._offset = offset
                break
        return self._offset
