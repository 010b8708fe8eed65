"""A line is what json.dumps() makes of the event's document, whether it was made the long way or from a template."""

from __future__ import annotations

import json
import random
import struct
import time
from typing import Any

from sockpid import event
from sockpid.event_lines import EventLines
from tests.unit.test_event import NOBODY, owner, record

OFFSET = 1_700_000_000_000_000_000


class Source:
    """Makes documents as a session does, and counts them. comm: the owner's name as /proc has it now."""

    def __init__(self) -> None:
        self.made = 0
        self.comm = 'a"b\\%d %s ☃'
        self.offset = OFFSET
        self.until = time.monotonic() + 1000

    def document(self, seen: event.Event) -> dict[str, Any]:
        self.made += 1
        document: dict[str, Any] = seen.json(self.offset, "table", "no-hook")
        return {
            **document,
            "comm": self.comm,
            "exited": False,
            "cgroup": "/100%",
            "labels": {"x": [1, None]},
            "host": "h",
        }

    def lines(self) -> EventLines:
        return EventLines(self.document, lambda _pid, _start: self.until)


def varied(seed: int, raw: bytes) -> bytes:
    """Another event of the same socket: other times and counts."""
    rng = random.Random(seed)
    ts_ns, sk, _ = struct.unpack_from("=QQQ", raw)
    counts = struct.pack("=IIIII", *(rng.randrange(1 << 32) for _ in range(5)))
    head = struct.pack("=QQQ", ts_ns + rng.randrange(1 << 40), sk, rng.randrange(1 << 64))
    return head + raw[24:196] + counts + raw[216:]


def another_socket(seed: int, raw: bytes) -> bytes:
    """An event of another socket of the same processes, which used it at other times."""
    rng = random.Random(seed)
    when = struct.pack("=Q", rng.randrange(1 << 40))
    ports = struct.pack("=HH", rng.randrange(1 << 16), rng.randrange(1 << 16))
    raw = raw[:40] + when + raw[48:96] + when + raw[104:142] + ports + raw[146:184] + when + raw[192:]
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


def test_a_seeded_socket_is_told_as_its_document_is() -> None:
    """How many had it open may be known of each socket alone."""
    seeded = record(owner(how=6))
    seeded = seeded[:217] + b"\3" + seeded[218:]
    check([another_socket(n % 5, seeded) for n in range(50)], 5)


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
