"""The judge says what it should of storms that are written by hand. One that never finds anything proves nothing."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from .field import record
from .field.record import Record
from .history import History, hard_operations
from .judge import BELIEVED, LATER, Judge
from .verdict import Verdict

Json = dict[str, Any]
MS = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
HOOKS = {"connect", "listen", "send", "receive"}
TUPLE = "1 inet 127.0.0.1 40 127.0.0.2 9 0"
END = 100_000


class Script:
    """Logs, written in milliseconds. The probe is there from 10 ms on."""

    def __init__(self, keep: bool = False) -> None:
        self.logs: dict[str, list[Record]] = {}
        self.phases: list[Json] = []
        self._phase = 0
        self.keep = keep
        self.phase(5, 10)

    def phase(self, spawn: int, ready: int) -> None:
        """The probe begins, or begins again."""
        for what, at in (("spawn", spawn), ("ready", ready)):
            self._say(what, at)

    def stop(self, at: int) -> None:
        self._say("stop", at)
        self._say("ended", at)
        self._phase += 1

    def _say(self, what: str, at: int) -> None:
        line = {"what": what, "mono": at * MS, "real": at * MS, "number": self._phase, "keep": self.keep}
        self.phases.append(line)

    def born(self, name: str, pid: int, at: int = 1, comm: str = "prog") -> None:
        words = {"pid": pid, "ticks": pid * 10, "comm": comm, "parent": None}
        self.logs[name] = [Record(at * MS, at * MS, 0, 0, record.BORN, 0, json.dumps(words).encode())]

    def does(self, name: str, operation: int, begin: float, end: float, inode: int = 7, **other: Any) -> None:
        more = other.get("more", TUPLE if operation in (record.CONNECT, record.ACCEPT) else "")
        flags = record.FAILED if other.get("failed") else 0
        content = more if isinstance(more, bytes) else more.encode()
        self.logs[name].append(Record(int(begin * MS), int(end * MS), inode, 0, operation, flags, content))

    def connects(self, name: str, begin: float, inode: int = 7, more: str = TUPLE) -> None:
        self.does(name, record.TAKE, begin - 0.1, begin, inode)
        self.does(name, record.CONNECT, begin, begin + 1, inode, more=more)

    def inherits(self, name: str, begin: float, *inodes: int) -> None:
        self.does(name, record.INHERIT, begin, begin + 1, 0, more=struct.pack(f"<{len(inodes)}Q", *inodes))

    def ends(self, name: str, at: float, by: str = "other") -> None:
        self.does(name, record.EXIT, at, at + 0.1, 0)
        self.logs.setdefault(by, [])
        self.does(by, record.REAPED, at, at + 1, 0, more=name)

    def judge(self, *events: Json, number: int = 0, room: int = 8192, later: int = LATER) -> Verdict:
        for name in list(self.logs):
            if name != "other" and all(each.operation != record.EXIT for each in self.logs[name]):
                self.ends(name, END)
        self._say("stop", END)
        history = History(self.logs.items(), self.phases, hard_operations(HOOKS, False))
        court = Judge(history, room, later=later)
        court.events(number, events)
        return court.verdict


def event(at: float, pid: int | None, **other: Any) -> Json:
    named: Json = {"pid": pid, "tid": pid, "comm": "prog", "start_ns": (pid or 0) * 10 * 10**9 // TICKS, "how": "send"}
    if pid is None:
        named = dict.fromkeys(named)
    line: Json = {"ts_ns": int(at * MS), "kind": "rto", "state": "ESTABLISHED", "netns": 1, "family": "inet"}
    line |= {"saddr": "127.0.0.1", "sport": 40, "daddr": "127.0.0.2", "dport": 9, "inode": 7, **named}
    line |= {"reason": None, "ambiguous": 1, "interrupted_pid": 0, "exited": False, "opener_pid": None}
    return {**line, **other}


def two() -> Script:
    """P (10) connects and sends; its child C (11) has the socket, too."""
    script = Script()
    script.born("p", 10)
    script.connects("p", 20)
    script.does("p", record.SEND, 30, 31)
    script.born("p-1", 11, at=40)
    script.inherits("p-1", 40, 7)
    return script


def test_right() -> None:
    verdict = two().judge(event(50, 10, interrupted_pid=10), event(60, 10))
    assert (verdict.faults, verdict.events, verdict.right, verdict.naive) == ({}, 2, 2, 1)


@pytest.mark.parametrize(
    ("pid", "other"),
    [(11, {}), (99, {}), (10, {"start_ns": 999}), (11, {"certain": True}), (None, {"reason": "no-hook"})],
)
def test_wrong_process_or_start_or_nobody(pid: int | None, other: Json) -> None:
    verdict = two().judge(event(50, pid, **other))
    assert not verdict.ok
    assert verdict.right == 0


def test_the_one_who_used_it_last() -> None:
    script = two()
    script.does("p-1", record.SEND, 60, 61)
    verdict = script.judge(event(50, 10), event(70, 11, ambiguous=2))
    assert (verdict.faults, verdict.right) == ({}, 2)
    assert script.judge(event(50, 11), event(70, 10, ambiguous=2)).faults == {"wrong": 2}


def test_what_is_under_way_may_count_or_not() -> None:
    script = two()
    script.does("p-1", record.SEND, 60, 80)
    verdict = script.judge(event(70, 10), event(70, 11), event(90, 10, ambiguous=2))
    assert (verdict.right, verdict.faults) == (2, {"wrong": 1})


def test_what_failed_may_count_or_not() -> None:
    script = two()
    script.does("p-1", record.SEND, 60, 61, failed=True)
    assert script.judge(event(70, 10), event(70, 11)).right == 2


def test_two_at_once_may_both_be_last() -> None:
    script = two()
    script.does("p", record.SEND, 60, 65)
    script.does("p-1", record.SEND, 62, 67)
    assert script.judge(event(80, 10, ambiguous=2), event(80, 11, ambiguous=2)).right == 2


def test_who_was_killed_in_the_middle() -> None:
    script = two()
    script.does("p-1", record.SEND, 60, 0)
    script.logs["other"] = []
    script.does("other", record.KILL, 70, 71, 0, more="p-1")
    script.does("other", record.REAPED, 72, 73, 0, more="p-1")
    script.logs["p-1"] = [*script.logs["p-1"], Record(0, 0, 0, 0, record.OPTION, 0, b"")]
    history = History(script.logs.items(), script.phases, hard_operations(HOOKS, False))
    court = Judge(history, 8192)
    court.events(0, [event(80, 10), event(80, 11)])
    assert court.verdict.right == 2


def test_a_doubt_is_no_fault_but_counted() -> None:
    verdict = two().judge(event(50, 11, certain=False, doubt="missed"), event(50, 10, certain=False, doubt="missed"))
    assert (verdict.faults, verdict.doubted, verdict.doubted_wrong) == ({}, {"missed": 2}, {"missed": 1})


def test_not_held_must_be_so() -> None:
    script = two()
    assert script.judge(event(50, 10, certain=False, doubt="not-held")).faults == {"contradicted": 1}
    script = two()
    script.does("p", record.CLOSE, 60, 61)
    assert script.judge(event(50, 10, certain=False, doubt="not-held")).ok


def test_certain_of_one_who_gave_it_away() -> None:
    """The child alone has it, and has shut it down, which no hook saw."""
    script = two()
    script.does("p", record.CLOSE, 50, 51)
    script.does("p-1", record.SHUTDOWN, 60, 61)
    assert script.judge(event(70, 10)).stale == 1
    assert script.judge(event(70, 10, certain=True)).faults == {"stale but certain": 1}
    assert script.judge(event(70, 11, how="holder", certain=True)).ok
    behind = script.judge(event(70, 10, certain=True), later=2 * LATER)
    assert (behind.ok, behind.stale) == (True, 1), "there was no time to look"


def test_unknown_is_a_fault_only_where_a_hook_would_tell() -> None:
    script = Script()
    script.born("p", 10)
    script.does("p", record.ACCEPT, 20, 21)
    assert script.judge(event(50, None, reason="no-hook")).ok
    script.does("p", record.SEND, 30, 31)
    assert script.judge(event(50, None, reason="no-hook")).faults == {"missed": 1}
    assert script.judge(event(50, None, reason="missed")).ok


def test_unknown_of_an_older_socket() -> None:
    script = Script()
    script.born("p", 10)
    script.connects("p", 2)
    assert script.judge(event(50, None, reason="older-than-probe")).ok
    assert script.judge(event(50, None, reason="no-hook")).faults == {"reason": 1}
    assert script.judge(event(50, None, reason="kernel-socket")).faults == {"reason": 1}
    script.does("p", record.SEND, 30, 31)
    assert script.judge(event(50, None, reason="older-than-probe")).faults == {"missed": 1}


def test_the_age_of_an_orphan_is_not_known() -> None:
    script = Script()
    script.born("p", 10)
    script.connects("p", 2)
    script.does("p", record.CLOSE, 4, 5)
    assert script.judge(event(50, None, reason="no-hook", inode=0)).ok
    assert script.judge(event(50, None, reason="no-hook", inode=7)).faults == {"reason": 1}


def test_older_is_no_excuse_for_a_young_socket() -> None:
    script = Script()
    script.born("p", 10)
    script.does("p", record.ACCEPT, 20, 21)
    assert script.judge(event(50, None, reason="older-than-probe")).faults == {"reason": 1}


def test_an_accepted_socket_is_as_old_as_the_call() -> None:
    script = Script()
    script.born("q", 12)
    script.connects("q", 2, inode=8, more="1 inet 127.0.0.2 9 127.0.0.1 40 0")
    script.born("p", 10)
    script.does("p", record.ACCEPT, 20, 21)
    assert script.judge(event(50, None, reason="older-than-probe")).ok


def test_older_than_a_run_is_what_no_former_one_saw_either() -> None:
    script = Script(keep=True)
    script.born("p", 10)
    script.does("p", record.ACCEPT, 20, 21)
    script.stop(50)
    script.phase(55, 60)
    assert script.judge(event(70, None, reason="older-than-probe"), number=1).ok


def test_evicted_only_where_there_was_no_room() -> None:
    assert two().judge(event(50, None, reason="evicted")).faults == {"evicted": 1}
    assert two().judge(event(50, None, reason="evicted"), room=0).ok


def test_what_was_used_before_a_restart_may_be_forgotten() -> None:
    script = two()
    script.stop(50)
    script.phase(55, 60)
    assert script.judge(event(70, None, reason="older-than-probe"), number=1).ok


def test_what_was_used_before_a_restart_is_kept_where_it_is_to_be() -> None:
    script = Script(keep=True)
    script.born("p", 10)
    script.connects("p", 20)
    script.stop(50)
    script.phase(55, 60)
    assert script.judge(event(70, None, reason="older-than-probe"), number=1).faults == {"missed": 1}


def older() -> Script:
    """As two(), but all that P did was before the probe."""
    script = Script()
    script.born("p", 10)
    script.connects("p", 2)
    script.born("p-1", 11, at=4)
    script.inherits("p-1", 4, 7)
    return script


def test_seeds_and_holders_need_not_have_used_it() -> None:
    script = older()
    for how in ("seed", "holder"):
        assert script.judge(event(50, 11, how=how, ambiguous=2)).held == 1
        assert script.judge(event(50, 11, how=how, ambiguous=2, certain=True)).faults == {"wrong": 1}
        assert script.judge(event(50, 99, how=how)).faults == {"wrong": 1}


def test_a_seed_that_another_process_used_since() -> None:
    script = older()
    script.does("p", record.SEND, 60, 61)
    assert script.judge(event(70, 11, how="seed", ambiguous=2)).faults == {"wrong": 1}


def test_one_who_gave_it_away_is_no_holder() -> None:
    script = two()
    script.does("p-1", record.CLOSE, 45, 46)
    assert script.judge(event(60, 11, how="holder")).faults == {"wrong": 1}


def test_a_tuple_belongs_to_whom_had_it_then() -> None:
    script = two()
    script.does("p", record.CLOSE, 50, 51)
    script.born("q", 12)
    script.connects("q", 60, inode=8)
    script.does("p-1", record.CLOSE, 50, 51)
    verdict = script.judge(event(55, 10, inode=0), event(70, 12, inode=8))
    assert (verdict.faults, verdict.right) == ({}, 2)
    assert script.judge(event(70, 10, inode=8)).faults == {"wrong": 1}
    assert script.judge(event(70, 10, inode=7)).unjudged == 1


def test_twins_on_two_devices() -> None:
    script = two()
    script.born("q", 12)
    script.connects("q", 30, inode=8, more="1 inet 127.0.0.1 40 127.0.0.2 9 3")
    assert script.judge(event(50, 12, inode=8, ifindex=3), event(50, 10, ifindex=0)).right == 2
    assert script.judge(event(50, 10, inode=8, ifindex=3)).faults == {"wrong": 1}
    assert script.judge(event(50, 10, inode=0, ifindex=3)).faults["wrong"] == 1
    assert script.judge(event(50, 12, inode=8, ifindex=0)).faults == {"ifindex": 1}


@pytest.mark.parametrize(
    ("fault", "other"),
    [
        ("name", {"comm": "another"}),
        ("exited", {"exited": True}),
        ("ambiguous, too many", {"ambiguous": 3}),
        ("opener", {"opener_pid": 11}),
        ("kind", {"kind": "syn"}),
        ("kind", {"state": "SYN_SENT"}),
        ("inode", {"inode": 0}),
        ("ifindex", {"ifindex": 2}),
    ],
)
def test_right_but_something_is_not_true(fault: str, other: Json) -> None:
    verdict = two().judge(event(50, 10), event(50, 10, **other))
    assert (verdict.faults, verdict.right) == ({fault: 1}, 2)


def test_too_few_users() -> None:
    script = two()
    script.does("p-1", record.SEND, 60, 61)
    assert script.judge(event(70, 11, ambiguous=1)).faults == {"ambiguous, too few": 1}
    assert script.judge(event(70, 11, ambiguous=1, certain=False, doubt="missed")).ok


def test_an_ended_owner_is_named_but_not_called_alive() -> None:
    script = two()
    script.ends("p", 60)
    late = 60 + LATER // MS
    assert script.judge(event(late, 10, exited=True)).ok
    assert script.judge(event(late, 10, exited=False)).faults == {"exited": 1}


def test_names() -> None:
    script = two()
    script.does("p", record.RENAME, 50, 51, 0, more="later")
    assert script.judge(event(45, 10), event(60, 10, comm="later")).ok
    script.does("p", record.SEND, 55, 56)
    assert script.judge(event(60, 10)).old_names == 1
    script = Script()
    script.born("p", 10)
    script.does("p", record.RENAME, 15, 16, 0, more="later")
    script.connects("p", 20)
    assert script.judge(event(60, 10)).old_names == 1
    assert script.judge(event(60 + BELIEVED // MS, 10)).faults == {"name": 1}


def test_a_listener_is_whose_it_is() -> None:
    script = Script()
    script.born("p", 10)
    script.does("p", record.TAKE, 18, 19)
    script.does("p", record.LISTEN, 20, 21, more="1 inet 127.0.0.1 40  0 0")
    script.born("p-1", 11, at=40)
    script.inherits("p-1", 40, 7)
    answered = {"kind": "synack", "state": "SYN_RECV", "how": "listen"}
    assert script.judge(event(50, 10, **answered)).right == 1
    assert script.judge(event(50, 11, **answered)).faults == {"wrong": 1}
    assert script.judge(event(50, 11, **{**answered, "how": "holder"}, ambiguous=2)).held == 1


def test_a_listener_that_was_handed_on() -> None:
    script = Script()
    script.born("p", 10)
    script.does("p", record.TAKE, 18, 19)
    script.does("p", record.LISTEN, 20, 21, more="1 inet 127.0.0.1 40  0 0")
    script.born("p-1", 11, at=40)
    script.inherits("p-1", 40, 7)
    script.does("p", record.CLOSE, 45, 46)
    answered = {"kind": "synack", "state": "SYN_RECV", "how": "listen"}
    assert script.judge(event(50, 10, **answered)).stale == 1
    assert script.judge(event(50, 10, **answered, certain=False, doubt="not-held")).ok
    assert script.judge(event(50, 10, **answered, certain=True)).faults == {"stale but certain": 1}
    assert script.judge(event(50, 11, **{**answered, "how": "holder"}, certain=True)).held == 1


def test_strangers_do_not_count() -> None:
    verdict = two().judge(event(50, 99, sport=41))
    assert (verdict.events, verdict.strangers) == (0, 1)


def test_events_while_the_probe_starts_are_told_apart() -> None:
    script = Script()
    script.born("p", 10)
    script.connects("p", 2)
    assert script.judge(event(7, 99)).faults == {"wrong, while starting": 1}


def test_a_storm_that_failed() -> None:
    script = two()
    script.phases.append({"what": "error", "mono": 0, "real": 0, "reason": "a worker died"})
    history = History(script.logs.items(), script.phases, hard_operations(HOOKS, False))
    assert history.errors == ["a worker died"]


def test_who_executed_another_program_is_told_of_by_its_parent() -> None:
    script = two()
    script.does("p", record.SEND, 60, 61, more="p-1")
    assert script.judge(event(70, 11, ambiguous=2)).right == 1
    assert script.judge(event(70, 10, ambiguous=2)).faults == {"wrong": 1}


def test_logs_outlive_their_process_and_grow(tmp_path: Path) -> None:
    log = record.Log(str(tmp_path), "w0")
    begun = [log.begin(record.SEND, number, more=b"x" * 1000) for number in range(2000)]
    log.end(begun[0])
    log.end(begun[1999], record.FAILED)
    record.pack(str(tmp_path), str(tmp_path.with_suffix(".log")))
    ((name, records),) = record.unpack(tmp_path.with_suffix(".log").read_bytes())
    assert name == "w0"
    assert [each.inode for each in records] == list(range(2000))
    assert [bool(each.end) for each in records] == [number in (0, 1999) for number in range(2000)]
    assert (records[0].flags, records[1999].flags, records[7].more) == (0, record.FAILED, b"x" * 1000)
