"""The order that the reader of per-CPU buffers gives, without a kernel: rings are lists here."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.bpf import perfbuf
from sockpid.bpf.perfbuf import ROUND, PerfBuffer


class Ring:
    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.lost = 0

    def read(self) -> tuple[list[bytes], int]:
        taken = self.records, self.lost
        self.records, self.lost = [], 0
        return taken


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def record(stamp: int) -> bytes:
    return struct.pack("=QI", stamp, stamp)


def stamps(records: list[bytes]) -> list[int]:
    return [struct.unpack_from("=Q", one)[0] for one in records]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(perfbuf, "time", clock)
    return clock


@pytest.fixture
def reader(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(perfbuf, "cpus", lambda _which: [])
    array: Any = SimpleNamespace()
    made = PerfBuffer(array, record_size=12)
    rings: Any = [Ring(), Ring()]
    made._rings = rings
    return made


def test_records_of_two_cpus_come_in_the_order_of_their_time(reader: Any, clock: Clock) -> None:
    one, two = reader._rings
    one.records = [record(10), record(30)]
    assert reader.drain() == []  # the first round only looks
    two.records = [record(20), record(40)]  # 20 was on its way while the first round read
    assert reader.drain() == []  # too early for another
    assert reader.wait(1.0)
    assert clock.now == pytest.approx(100.0 + ROUND)
    assert stamps(reader.drain()) == [10, 20, 30]
    assert stamps(reader.drain(last=True)) == [40]


def test_what_is_younger_than_the_last_round_waits_for_the_next(reader: Any, clock: Clock) -> None:
    one, two = reader._rings
    one.records = [record(10)]
    assert reader.drain() == []
    clock.now += ROUND
    two.records = [record(50)]
    assert stamps(reader.drain()) == [10]
    one.records = [record(45)]
    clock.now += ROUND
    assert stamps(reader.drain()) == [45, 50]


def test_the_last_drain_gives_all(reader: Any) -> None:
    one, two = reader._rings
    one.records, two.records = [record(5)], [record(3)]
    assert stamps(reader.drain(last=True)) == [3, 5]


def test_padding_is_cut_and_losses_add_up(reader: Any) -> None:
    one, two = reader._rings
    one.records, one.lost, two.lost = [record(1) + bytes(4)], 2, 3
    assert reader.drain(last=True) == [record(1)]
    assert reader.lost() == 5


def test_order_of_many(reader: Any, clock: Clock) -> None:
    """Whatever the interleaving: in order, as long as nothing is late by more than a round."""
    import random

    draw = random.Random(4)
    given: list[int] = []
    sent = 0
    late: list[tuple[int, Ring]] = []
    for _ in range(200):
        for stamp, ring in late:
            ring.records.append(record(stamp))
        late = []
        for _ in range(draw.randrange(6)):
            sent += 1
            ring = draw.choice(reader._rings)
            if draw.random() < 0.3:
                late.append((sent, ring))  # arrives before the next round
            else:
                ring.records.append(record(sent))
        given += stamps(reader.drain())
        clock.now += draw.choice((ROUND, 2 * ROUND))
    for stamp, ring in late:
        ring.records.append(record(stamp))
    given += stamps(reader.drain(last=True))
    assert given == list(range(1, sent + 1))
