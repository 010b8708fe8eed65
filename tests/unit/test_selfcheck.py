"""The self-check on a host so slow that the next retransmit comes before the kernel is asked about the last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sockpid import event, selfcheck
from sockpid.deaf import Info, Pair
from sockpid.socket_tuple import SocketTuple

TUPLE = SocketTuple(1, "inet", 1000, 2000, "127.0.0.1", "127.0.0.2")


def retransmit(number: int, *, cwnd: int = 1, kind: str = "rto") -> event.Event:
    fields: dict[str, Any] = dict.fromkeys(event.FIELDS, 0)
    fields.update(tuple=TUPLE, kind=kind, state="FIN_WAIT1", srtt_us=30, snd_cwnd=cwnd, total_retrans=number)
    fields.update(owner=event.process(7 << 32 | 7, 0, 0, 0, 1, 0, b"x"), kern=False, ulp=None, end_seq=1)
    return event.Event(**{**fields, "retransmits": max(number - 1, 0)})


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Without sockets: `answers` is what the kernel says when it is asked."""
    made = Pair.__new__(Pair)
    made.tuple, made.events, made.infos = TUPLE, [], []
    made.sender = type("Sender", (), {"shutdown": lambda *_: None})()
    monkeypatch.setattr(made, "inode", lambda: 0)
    return made


def answer(monkeypatch: pytest.MonkeyPatch, pair: Pair, *infos: Info) -> None:
    answers: Iterator[Info] = iter(infos)
    monkeypatch.setattr(pair, "info", lambda: next(answers))


def differences(pair: Pair) -> list[str]:
    return [
        line for e, i in zip(pair.events, pair.infos, strict=True) for line in selfcheck.compare(pair, e, i, {"pid": 7})
    ]


def test_an_answer_that_comes_too_late_is_not_held_against_the_event(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, pair, Info(1, 30, 1, 2), Info(2, 30, 1, 2))
    pair.take(retransmit(1, cwnd=10, kind="tlp"), 0)
    pair.take(retransmit(2), 0)
    assert differences(pair) == []
    assert not pair.complete()


def test_what_was_asked_in_time_is_compared(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, pair, Info(1, 30, 1, 1), Info(2, 31, 1, 2))
    pair.take(retransmit(1, cwnd=10), 0)
    pair.take(retransmit(2), 0)
    assert differences(pair) == ["snd_cwnd: 10, expected 1", "srtt_us: 30, expected 31"]
    assert pair.complete()


@pytest.mark.parametrize("numbers", [(1, 1), (1, 10), (0, 2), (5, 4)])
def test_a_wrong_number_of_retransmits_is_found_however_late(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, int]
) -> None:
    answer(monkeypatch, pair, Info(1, 30, 1, 9), Info(2, 30, 1, 9))
    for number in numbers:
        pair.take(retransmit(number), 0)
    assert any(line.startswith("total_retrans") for line in differences(pair))


def test_never_in_time_is_never_complete(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, pair, *[Info(1, 30, 1, 9)] * 4)
    for number in range(1, 5):
        pair.take(retransmit(number), 0)
    assert not pair.complete()


def test_a_place_that_misses_some_and_comes_too_early(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kprobe on entry sees no loss probes: its first event can be the second retransmit, counted as one."""
    answer(monkeypatch, pair, Info(1, 30, 1, 2), Info(2, 30, 1, 4))
    pair.take(retransmit(1), 1)
    pair.take(retransmit(2), 1)
    assert [info.total_retrans for info in pair.infos] == [1, 2]
    assert differences(pair) == []


def test_only_what_is_right_so_far_is_worth_waiting_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not selfcheck._promising([pair], {"pid": 7})  # no event at all
    answer(monkeypatch, pair, Info(1, 30, 1, 1), Info(2, 30, 1, 2))
    pair.take(retransmit(1), 0)
    assert selfcheck._promising([pair], {"pid": 7})
    pair.take(retransmit(2, cwnd=10), 0)
    assert not selfcheck._promising([pair], {"pid": 7})
