"""The kernel's time stamps as times of day."""

from __future__ import annotations

import time

TOLERANCE = 1000000
"""Nanoseconds by which a time of day may be off before it is corrected."""


class WallClock:
    """What to add to CLOCK_MONOTONIC for CLOCK_REALTIME."""

    def __init__(self) -> None:
        self._offset = 0

    def offset(self) -> int:
        """Nanoseconds. The same each time, so that events keep their order, until the clock was set, or has drifted.

        The two clocks cannot be read at once: their difference is a little another one each time.
        """
        offset = time.time_ns() - time.monotonic_ns()
        if abs(offset - self._offset) > TOLERANCE:
            self._offset = offset
        return self._offset
