"""A slice of `make soak`: all outputs at once, while sockets and processes come and go."""

from __future__ import annotations

from tests.bench import soak


def test_nothing_is_wrong_or_lost_while_sockets_come_and_go() -> None:
    result = soak.soak(15)
    assert result["sockets"] >= 60
    assert not soak.complaints(result, megabytes=8), result
    assert result["right"] >= 2 * result["sockets"]
    assert result["naive"] < result["right"] / 2
