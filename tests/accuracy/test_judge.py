"""The judge notices what it is there for. A harness that never finds anything proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from .judge import TICKS, Verdict, judge

Json = dict[str, Any]
SOCKET = {"netns": 1, "family": "inet", "saddr": "127.0.0.1", "sport": 1, "daddr": "127.0.0.2", "dport": 2}
OWNER = {"pid": 10, "comm": "own er", "start_ticks": 700}


def owner(**other: Any) -> Json:
    line = {"what": "owner", "scenario": "some", **SOCKET, "owners": [OWNER], "hooks": ["send"], "how": ["send"]}
    return {**line, "kinds": ["rto", "tlp"], "unknown": [], "since_ns": 100, "inode": 5, **other}


def event(**other: Any) -> Json:
    named = {"pid": 10, "tid": 10, "comm": "own er", "start_ns": 700 * 10**9 // TICKS + 1, "how": "send", "age_ns": 1}
    line = {**SOCKET, "ts_ns": 200, "kind": "rto", "state": "ESTABLISHED", **named, "reason": None}
    return {**line, "interrupted_pid": 0, "inode": 5, **other}


def test_what_is_told_of_a_holder_and_of_a_listener() -> None:
    """The thread is not known of who is named for having it open, and a SYN-ACK is told with the listener's inode."""
    assert verdict([owner(tids=[12])], [event(how="holder")]).ok
    assert verdict([owner(kinds=["synack"])], [event(kind="synack", inode=6)]).ok
    unused = judge([owner(scenario="accepted-unused", how=["accept"])], [event(how="shutdown")], {"accept"})
    assert unused["accepted-unused"].ok


def unknown(reason: str) -> Json:
    return event(pid=None, tid=None, comm=None, start_ns=None, how=None, age_ns=None, reason=reason)


def verdict(truth: list[Json], events: list[Json], ways: set[str] | None = None) -> Verdict:
    return judge(truth, events, {"send"} if ways is None else ways)["some"]


def test_right() -> None:
    found = verdict([owner()], [event(), event(kind="tlp", interrupted_pid=10)])
    assert (found.ok, found.right, found.events, found.naive) == (True, 2, 2, 1)


@pytest.mark.parametrize("other", [{"pid": 11}, {"comm": "else"}, {"start_ns": 701 * 10**9 // TICKS + 1}])
def test_wrong_pid_name_or_start(other: Json) -> None:
    found = verdict([owner()], [event(**other)])
    assert (found.ok, found.right, len(found.wrong)) == (False, 0, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"how": "connect"},
        {"kind": "fast"},
        {"inode": 6},
        {"age_ns": -1},
        {"opener_pid": 11},
        {"tid": 12},
        {"how": "shutdown"},
        {"state": "FIN_WAIT1"},
    ],
)
def test_right_but_odd(other: Json) -> None:
    found = verdict([owner(openers=[10], tids=[10], states=["ESTABLISHED"])], [event(), event(**other)])
    assert (found.ok, found.right, len(found.odd)) == (False, 2, 1)


def test_unknown_is_a_fault_only_where_a_hook_would_tell() -> None:
    assert not verdict([owner()], [event(), unknown("no-hook")]).ok
    assert verdict([owner()], [event(), unknown("no-hook")], {"accept"}).ok


def test_unknown_for_the_reason_that_was_expected() -> None:
    evicted = owner(unknown=["evicted"])
    assert verdict([evicted], [event(), unknown("evicted")]).ok
    assert not verdict([evicted], [event(), unknown("no-hook")]).ok


def test_an_ended_owner_is_still_named_but_not_called_alive() -> None:
    ended = {"what": "ended", "scenario": "some", **OWNER, "at_ns": 300}
    late = 300 + 2 * 10**9
    assert verdict([owner(), ended], [event(ts_ns=late, exited=True)]).ok
    assert not verdict([owner(), ended], [event(ts_ns=late, exited=False)]).ok


def test_a_tuple_belongs_to_whom_had_it_then() -> None:
    other = {**OWNER, "pid": 11}
    truth = [owner(since_ns=300, owners=[other]), owner()]
    assert verdict(truth, [event(), event(ts_ns=400, pid=11)]).ok
    assert len(verdict(truth, [event(ts_ns=400), event(pid=11)]).wrong) == 2


def test_events_that_are_missing() -> None:
    count = {"what": "count", "scenario": "some", **SOCKET, "total_retrans": 2}
    assert not verdict([owner()], []).ok
    assert not verdict([owner(), count], [event()]).ok
    assert verdict([owner(), count], [event()]).unseen == 1
    assert verdict([owner(), count], [event(), event()]).ok
    assert verdict([owner(reported_by="synack")], []).ok


def test_strangers_do_not_count() -> None:
    assert verdict([owner()], [event(), event(sport=9, pid=99)]).events == 1


def test_what_could_not_be_played() -> None:
    assert verdict([{"what": "skip", "scenario": "some", "reason": "no TLS"}], []).skipped == "no TLS"
    assert not verdict([{"what": "error", "scenario": "some", "reason": "it died"}], []).ok
