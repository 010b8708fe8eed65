"""Rows of `--count`: what the kernel summed, with what only /proc knows."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.event import socket_owner, socket_tuple
from sockpid.event.count import Count, decoded, document
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel, proc
from sockpid.host.inet_sock import InetSock
from sockpid.outputs import table
from sockpid.probe import seed
from sockpid.probe.seed import Seeds
from sockpid.run import counting

NAME = SocketTuple(77, "inet", 80, 9000, "10.0.0.1", "10.0.0.2", 3)
LISTED = InetSock(NAME, 1, 6, socket_tuple.pack(NAME))
PARENT, CHILD = proc.Holder(100, "parent", 50), proc.Holder(101, "child", 60)
STARTED = 500_000_000


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 100 is there and has renamed itself; 7 is gone."""
    monkeypatch.setattr(kernel, "time_namespace_ticks", lambda: 0)
    monkeypatch.setattr(proc, "is_exited", lambda pid, _start_ns: pid == 7)
    monkeypatch.setattr(proc, "comm", {100: "renamed"}.get)
    monkeypatch.setattr(proc, "holders", lambda inodes: {9: [CHILD]} if 9 in inodes else {})


def tracer(seeds: Seeds | None, public: socket_owner.SocketOwner | None = None) -> Any:
    return SimpleNamespace(
        seeds=seeds, public=lambda _name: public, name_of=lambda pid, _start: {7: "executed"}.get(pid)
    )


def test_rows_are_decoded() -> None:
    key = socket_tuple.pack(NAME) + struct.pack("=QQII16s", STARTED, 6, 100, 0, b"parent")
    assert decoded(key, struct.pack("=Q", 42)) == Count(NAME, 6, 100, STARTED, "parent", 42)


def test_a_process_is_called_what_it_is_called_now_and_has_one_row_a_socket() -> None:
    """The map has a row for each name that it had, and for the socket without its inode, once it was closed."""
    rows = [
        Count(NAME, 6, 100, STARTED, "python3", 1), Count(NAME, 6, 100, STARTED, "parent", 2),
        Count(NAME, 0, 100, STARTED, "parent", 4), Count(NAME, 6, 7, STARTED, "sh", 20),
    ]  # fmt: skip
    assert [(row.pid, row.comm, row.events) for row in counting.completed(tracer(None), rows)] == [
        (7, "executed", 20),
        (100, "renamed", 7),
    ]


def test_owners_of_older_sockets() -> None:
    """By inode at the start, or who has it open now; without an inode only where the map says that it is the same."""
    seeds = Seeds([LISTED], {6: (PARENT, CHILD)}, 1)
    rows = [
        Count(NAME, 6, 0, 0, "", 5), Count(NAME._replace(sport=81), 9, 0, 0, "", 3), Count(NAME, 0, 0, 0, "", 2),
        Count(NAME, 8, 0, 0, "", 1),
    ]  # fmt: skip
    known = [(row.pid, row.comm, row.holders, row.events) for row in counting.completed(tracer(seeds), rows)]
    assert known == [(100, "renamed", 2, 5), (101, "child", 1, 3), (0, "", 0, 2), (0, "", 0, 1)]
    same = socket_owner.SocketOwner(seed.process(PARENT, 1), 0, 6, 2, socket_owner.LATE)
    closed = counting.completed(tracer(seeds, same), rows[2:3])
    assert [(row.pid, row.events) for row in closed] == [(100, 2)]


def test_how_a_row_is_told() -> None:
    shared, unknown = Count(NAME, 0, 100, STARTED, "parent", 5, 3), Count(NAME, 6, 0, 0, "", 1)
    assert "parent +2" in table.count_row(shared)
    assert "(unknown)" in table.count_row(unknown)
    told = document(shared)
    assert (told["pid"], told["ambiguous"], told["ifindex"]) == (100, 3, 3)
    told = document(unknown)
    assert (told["pid"], told["comm"], told["ambiguous"]) == (None, None, None)
