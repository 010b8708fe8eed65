"""The self-check on a host so slow that the next retransmit comes before the kernel is asked about the last."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid import errors
from sockpid.event import event
from sockpid.event.socket_tuple import SocketTuple
from sockpid.selfcheck import compare, selfcheck
from sockpid.subjects.deaf import Info, Pair

TUPLE = SocketTuple(1, "inet", 1000, 2000, "127.0.0.1", "127.0.0.2")


def retransmit(number: int, *, cwnd: int = 1, kind: str = "rto") -> event.Event:
    fields: dict[str, Any] = dict.fromkeys(event.FIELDS, 0)
    fields.update(tuple=TUPLE, kind=kind, state="FIN_WAIT1", srtt_us=30, snd_cwnd=cwnd, total_retrans=number)
    fields.update(owner=event.process(7 << 32 | 7, 0, 0, 0, 1, 0, b"x"), kern=False, ulp=None, end_seq=1)
    fields.update(found="sock", users=1, record=None, pending=5 if kind == "tlp" else 0)
    return event.Event(**{**fields, "retransmits": max(number - 1, 0)})


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Without sockets: `answers` is what the kernel says when it is asked."""
    made = Pair.__new__(Pair)
    made.family, made.tuple, made.events, made.infos, made._ending = "inet", TUPLE, [], [], False
    made.sender = type("Sender", (), {"shutdown": lambda *_: None})()
    monkeypatch.setattr(made, "inode", lambda: 0)
    return made


def answer(monkeypatch: pytest.MonkeyPatch, pair: Pair, *infos: Info) -> None:
    answers: Iterator[Info] = iter(infos)
    monkeypatch.setattr(pair, "info", lambda: next(answers))


def differences(pair: Pair) -> list[str]:
    return [
        line for e, i in zip(pair.events, pair.infos, strict=True) for line in compare.compare(pair, e, i, {"pid": 7})
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
    watch: Any = SimpleNamespace(crowded=lambda: False, connects=lambda: False, reads=lambda _field: True)
    assert not selfcheck._promising([pair], {"pid": 7}, watch)  # no event at all
    answer(monkeypatch, pair, Info(1, 30, 1, 1), Info(2, 30, 1, 2))
    pair.take(retransmit(1), 0)
    assert selfcheck._promising([pair], {"pid": 7}, watch)
    pair.take(retransmit(2, cwnd=10), 0)
    assert not selfcheck._promising([pair], {"pid": 7}, watch)


def stranger(**fields: Any) -> event.Event:
    other = TUPLE._replace(sport=1, dport=2, saddr="10.0.0.1", daddr="10.0.0.2")
    return retransmit(1)._replace(**{"tuple": other, "inode": 99, **fields})


@pytest.fixture
def probe() -> SimpleNamespace:
    """Of a tracer, what is asked of it once the events are there."""
    return SimpleNamespace(ran=True, lost=0, unread=0, crowded=False)


def judged(pair: Pair, strangers: list[event.Event], probe: SimpleNamespace) -> selfcheck.Result:
    watch: Any = SimpleNamespace(
        crowded=lambda: probe.crowded,
        reads=lambda _field: True,
        connects=lambda: False,
        fired=lambda _: probe.ran,
        lost=lambda: probe.lost,
        unread=lambda: probe.unread,
        has=lambda _: False,
    )
    tracer: Any = SimpleNamespace(
        owner_of=lambda _: None, forget=lambda _: None, public=lambda _: None, is_public_full=lambda: False
    )
    pair._inode = 0
    return selfcheck._judge(tracer, watch, pair, strangers, {"pid": 7})


def test_events_of_strangers_are_never_compared(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, probe: SimpleNamespace
) -> None:
    """Of its own there are none, for the others fill the buffer: that is late."""
    monkeypatch.setattr(pair, "info", lambda: Info(3, 30, 1, 3))
    probe.lost = 12
    result = judged(pair, [stranger(), stranger(inode=98)], probe)
    assert result.mismatches == []
    assert (
        result.late == "the kernel retransmitted 3 times, and 12 events were lost: they come faster than they are read"
    )


@pytest.mark.parametrize("missing", ["lost", "unread"])
def test_what_may_be_among_the_missing_is_not_looked_for_among_those_of_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, probe: SimpleNamespace, missing: str
) -> None:
    monkeypatch.setattr(pair, "info", lambda: Info(3, 30, 1, 3))
    others = stranger(tuple=TUPLE._replace(dport=2001), owner=event.process(8 << 32 | 8, 0, 0, 0, 1, 0, b"y"))
    wrong = judged(pair, [others], probe).mismatches
    assert "pid: 8, expected 7" in wrong
    setattr(probe, missing, 5)
    result = judged(pair, [others], probe)
    assert result.mismatches == []
    assert (result.late or "").endswith("they come faster than they are read")
    ours = stranger(tuple=TUPLE._replace(dport=2001, daddr="9.9.9.9"))
    assert "dport: 2001, expected 2000" in judged(pair, [ours], probe).mismatches


def test_a_program_that_did_not_run_has_read_nothing_wrong(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, probe: SimpleNamespace
) -> None:
    monkeypatch.setattr(pair, "info", lambda: Info(3, 30, 1, 3))
    monkeypatch.setattr(selfcheck, "switched_off", lambda: "kernel.ftrace_enabled is 0")
    probe.ran = False
    result = judged(pair, [], probe)
    assert result.mismatches == []
    assert result.late is not None
    assert result.late.endswith("did not run: kernel.ftrace_enabled is 0")


def test_what_ran_and_lost_nothing_read_wrong(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, probe: SimpleNamespace
) -> None:
    monkeypatch.setattr(pair, "info", lambda: Info(3, 30, 1, 3))
    assert judged(pair, [], probe).mismatches == ["no event, though the kernel retransmitted 3 times"]
    near = judged(pair, [stranger(tuple=TUPLE._replace(dport=2001, daddr="9.9.9.9"))], probe)
    assert "dport: 2001, expected 2000" in near.mismatches


def test_an_owner_that_was_evicted_is_late(pair: Pair, monkeypatch: pytest.MonkeyPatch, probe: SimpleNamespace) -> None:
    answer(monkeypatch, pair, *[Info(number, 30, 1, number) for number in (1, 2, 2)])
    for number in (1, 2):
        pair.take(retransmit(number)._replace(owner=None, found=None), 0)
    probe.crowded = True
    result = judged(pair, [], probe)
    assert result.mismatches == []
    assert "--max-sockets" in (result.late or "")
    probe.crowded = False
    monkeypatch.setattr(pair, "info", lambda: Info(2, 30, 1, 2))
    assert "owner: None, expected 7" in judged(pair, [], probe).mismatches


def test_late_results_do_not_blame_the_offsets() -> None:
    late = [selfcheck.Result(family, [], [], None, "too late") for family in ("inet", "inet6")]
    right = selfcheck.Result("mapped", [], [], None)
    assert selfcheck.demand([*late, right]) == ["inet: too late", "inet6: too late"]
    for results, must in ((late, False), ([*late, right], True)):
        with pytest.raises(errors.SelfCheckError, match="found nothing wrong so far") as refusal:
            selfcheck.demand(results, must)
        assert "offsets" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"pending": 3}, "kind: rto (icsk_pending 3), expected icsk_pending 0"),
        ({"ca_state": 3}, "ca_state: 3, expected 4"),
        ({"found": "mptcp"}, "found: 'mptcp', expected 'sock'"),
        ({"kern": True}, "kern: True, expected False"),
        ({"tuple": TUPLE._replace(ifindex=5)}, "ifindex: 5, expected 0"),
    ],
)
def test_each_difference_is_told(pair: Pair, change: dict[str, Any], line: str) -> None:
    right = retransmit(2)._replace(ca_state=4)
    info = Info(2, 30, 1, 2, 4)
    assert compare.compare(pair, right, info, {"pid": 7}) == []
    assert compare.compare(pair, right._replace(**change), info, {"pid": 7}) == [line]
