"""A line is what json.dumps() makes of the event's document, whether it was made the long way or from a template."""

from __future__ import annotations

import json
import random
import struct
import time
from typing import Any

from sockpid.event import event
from sockpid.event.lines import EventLines
from tests.unit.event.test_event import NOBODY, owner, record

OFFSET = 1_700_000_000_000_000_000


class Source:
    """Makes documents as a session does, and counts them. comm: the owner's name as /proc has it now."""

    def __init__(self) -> None:
        self.made = 0
        self.comm = 'a"b\\%d %s ☃'
        self.offset = OFFSET
        self.until = time.monotonic() + 1000
        self.doubtful: set[int] = set()

    def document(self, seen: event.Event) -> dict[str, Any]:
        self.made += 1
        document: dict[str, Any] = seen.json(self.offset, "table", "no-hook")
        return {
            **document,
            "certain": document["inode"] not in self.doubtful,
            "comm": self.comm,
            "exited": False,
            "cgroup": "/100%",
            "labels": {"x": [1, None]},
            "host": "h",
        }

    def lines(self) -> EventLines:
        return EventLines(self.document, lambda _pid, _start: self.until, self.glance)

    def glance(self, pid: int, start_ns: int, when_ns: int, inode: int) -> bool:
        assert (pid, start_ns) in ((94, 1111), (300, 9))
        assert when_ns
        return inode not in self.doubtful


def varied(seed: int, raw: bytes) -> bytes:
    """Another event of the same socket: other times and counts."""
    rng = random.Random(seed)
    ts_ns, sk, _ = struct.unpack_from("=QQQ", raw)
    counts = struct.pack("=IIIII", *(rng.randrange(1 << 32) for _ in range(5)))
    head = struct.pack("=QQQ", ts_ns + rng.randrange(1 << 40), sk, rng.randrange(1 << 64))
    at = event.EVENT_SIZE - 64 + 12  # behind inode and err
    return head + raw[24:at] + counts + raw[at + 20 :]


def another_socket(seed: int, raw: bytes) -> bytes:
    """An event of another socket of the same processes, which used it at other times."""
    rng = random.Random(seed)
    when = struct.pack("=Q", rng.randrange(1 << 40))
    ports = struct.pack("=HH", rng.randrange(1 << 16), rng.randrange(1 << 16))
    at = event.EVENT_SIZE - 64 - 48  # the socket's name, before what is the segment's
    raw = raw[:40] + when + raw[48 : at + 10] + ports + raw[at + 14 : at + 48] + when + raw[at + 56 :]
    return varied(seed, raw)


def check(raw: list[bytes], longest: int) -> None:
    """All lines are right, and no more than `longest` were made the long way."""
    source, truth = Source(), Source()
    lines = source.lines()
    events = [event.decode(each) for each in raw]
    got = lines.lines(events)
    assert got == [json.dumps(truth.document(event.decode(each))).encode() + b"\n" for each in raw]
    assert source.made <= longest
    assert lines.last_ns == json.loads(got[-1])["ts_ns"]


def test_lines_are_what_json_makes_of_documents() -> None:
    sockets = [record(owner()), record(owner(how=7)), record(owner(), family=10), record(owner(), ca_state=0)]
    check([varied(n, sockets[n % len(sockets)]) for n in range(200)], len(sockets))


def test_other_sockets_of_a_process_need_no_document_of_their_own() -> None:
    processes = [record(owner()), record(owner(), family=10)]
    check([another_socket(n, processes[n % 2]) for n in range(200)], 1)


def test_failed_attempts_are_another_kind() -> None:
    check([record(owner()), record(owner(), err=-16), record(owner()), record(owner(), err=-105)], 2)


def test_an_owner_that_takes_over_is_told() -> None:
    other = struct.pack("=QQQQII16s", 300 << 32 | 301, 9, 2_500, 7, 3, 0, b"heir") + owner()[56:]
    check([record(owner()), record(other), record(owner()), record(other)], 2)


def test_an_unknown_owner_is_asked_for_each_time() -> None:
    source = Source()
    lines = source.lines()
    lines.lines([event.decode(record(NOBODY))] * 3)
    assert (source.made, lines.unknown) == (3, 3)


def test_what_proc_said_is_not_believed_for_longer_than_it_may() -> None:
    source = Source()
    lines = source.lines()
    seen = event.decode(record(owner()))
    source.until = time.monotonic() - 1
    lines.lines([seen])
    source.comm = "renamed"
    assert json.loads(lines.lines([seen])[0])["comm"] == "renamed"


def test_a_clock_that_was_set_counts_for_all_that_follows() -> None:
    source = Source()
    lines = source.lines()
    first, second = event.decode(record(owner())), event.decode(record(owner(how=7)))
    lines.lines([first])
    source.offset += 10**9
    lines.lines([second])
    assert json.loads(lines.lines([first])[0])["ts_ns"] == first.ts_ns + OFFSET + 10**9


def test_an_event_that_was_changed_is_told_as_it_is_now() -> None:
    source = Source()
    lines = source.lines()
    seen = event.decode(record(owner()))
    changed = seen._replace(owner=None, first=None, found=None)
    assert [json.loads(line)["pid"] for line in lines.lines([seen, changed, seen])] == [94, None, 94]


def test_an_owner_that_is_not_certain_any_more_is_told_the_long_way() -> None:
    source = Source()
    lines = source.lines()
    raw = record(owner())
    one, other = event.decode(raw), event.decode(another_socket(1, raw))
    assert [json.loads(line)["certain"] for line in lines.lines([one, other])] == [True, True]
    assert source.made == 1
    source.doubtful.add(other.inode)
    assert [json.loads(line)["certain"] for line in lines.lines([one, other])] == [True, False]
    assert source.made == 2


def test_a_line_with_a_doubt_is_no_template() -> None:
    source = Source()
    seen = event.decode(record(owner()))
    source.doubtful.add(seen.inode)
    lines = source.lines()
    lines.lines([seen])
    source.doubtful.clear()
    assert [json.loads(line)["certain"] for line in lines.lines([seen])] == [True]
    assert source.made == 2
