"""The second witness on processes and sockets of our own, and within its bounds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sockpid.host import descriptors, kernel, proc
from sockpid.owner import witness
from sockpid.owner.witness import Witness

CHILD = """
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
print(*(__import__("os").fstat(each.fileno()).st_ino for each in sockets), flush=True)
sys.stdin.readline()
sockets[0].close()
print("closed", flush=True)
sys.stdin.readline()
"""


class Other:
    """A process with sockets of its own."""

    def __init__(self, sockets: int = 2) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", CHILD, str(sockets)], stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        self.inodes = [int(word) for word in self.process.stdout.readline().split()]
        self.pid = self.process.pid
        ticks = proc.start_ticks(self.pid)
        assert ticks is not None
        self.start_ns = proc.ns_of(ticks)

    def close_first(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "closed\n"


@pytest.fixture
def other() -> Iterator[Other]:
    started = Other()
    with started.process:
        yield started
        started.process.kill()


def test_a_holder_is_confirmed_and_a_stranger_is_not(other: Other) -> None:
    asked = Witness(True)
    with socket.socket() as ours:
        inode = os.fstat(ours.fileno()).st_ino
        assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is True
        assert asked.holds(other.pid, other.start_ns, inode) is False
        holders = asked.holders(inode, time.monotonic_ns())
        assert holders is not None
        assert [holder.pid for holder in holders] == [os.getpid()]


def test_another_process_of_the_same_id_is_nobody_to_ask(other: Other) -> None:
    assert Witness(True).holds(other.pid, other.start_ns - 10**9, other.inodes[0]) is None


def test_who_is_gone_is_nobody_to_ask_and_is_not_asked_again(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Witness(True)
    other.process.kill()
    other.process.wait()
    assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is None
    monkeypatch.setattr(proc, "start_ticks", lambda _pid: pytest.fail("asked again"))
    assert asked.holds(other.pid, other.start_ns, other.inodes[1]) is None


def test_what_was_closed_is_held_for_no_longer_than_it_is_believed(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Witness(True)
    assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is True
    other.close_first()
    monkeypatch.setattr(witness, "KEEP_SECONDS", 0.0)
    assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is False
    assert asked.holds(other.pid, other.start_ns, other.inodes[1]) is True
    assert asked.holders(other.inodes[0], time.monotonic_ns()) == ()


def test_what_was_seen_before_a_time_is_no_answer_for_it(other: Other) -> None:
    asked = Witness(True)
    first = other.inodes[0]
    assert asked.holds(other.pid, other.start_ns, first) is True
    assert asked.holders(first, 0) is not None
    other.close_first()
    assert asked.holds(other.pid, other.start_ns, first) is True, "it is believed for a while"
    since = kernel.monotonic_ns()
    assert asked.some_holders(first, since) == ()
    assert asked.holds(other.pid, other.start_ns, first, since) is False


def test_a_look_at_all_processes_serves_everything_that_was_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = descriptors.look

    def look() -> descriptors.Opened:
        looks.append(1)
        return real()

    monkeypatch.setattr(descriptors, "look", look)
    asked = Witness(True)
    asked.holders(1, time.monotonic_ns())
    before = asked._opened_ns
    asked.holders(2, before)
    assert len(looks) == 1
    asked.holders(3, time.monotonic_ns())
    assert len(looks) == 2


def test_looks_take_their_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 50 ms here: after a burst they are some 20 times as far apart."""
    moment = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])

    def look() -> descriptors.Opened:
        moment[0] += 0.05
        return descriptors.Opened({}, {}, {})

    monkeypatch.setattr(descriptors, "look", look)
    asked = Witness(True)
    answered = 0
    for _ in range(10_000):
        moment[0] += 0.01
        answered += asked.holders(1, 1 << 62) is not None
    assert 0.04 < answered * 0.05 / moment[0] < 0.06


def test_what_cannot_be_seen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: True)
    said: list[str] = []
    monkeypatch.setattr(descriptors, "missing_capabilities", lambda: ["CAP_SYS_PTRACE"])
    found = witness.begin(said.append)
    assert found is not None
    assert not found.whole
    assert len(said) == 1
    assert said[0].endswith("needs CAP_SYS_PTRACE")
    monkeypatch.setattr(descriptors, "missing_capabilities", list)
    found = witness.begin(said.append)
    assert found is not None
    assert found.whole
    assert len(said) == 1
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: False)
    assert witness.begin(said.append) is None, "its ids are not those of the events"


def test_who_has_not_got_it_does_not_get_it_back_for_want_of_time(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Witness(whole=True)
    monkeypatch.setattr(witness, "KEEP_SECONDS", 0.0)
    assert asked.holds(other.pid, other.start_ns, 1) is False
    may = asked._may

    def never(_now: float, is_cheap: bool = False) -> bool:
        return False

    monkeypatch.setattr(asked, "_may", never)
    assert asked.holds(other.pid, other.start_ns, 1) is False
    assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is None
    other.close_first()
    monkeypatch.setattr(asked, "_may", may)
    assert asked.holds(other.pid, other.start_ns, other.inodes[0]) is False
    assert asked.holds(other.pid, other.start_ns, other.inodes[1]) is True
    assert asked._absent == {(other.pid, other.start_ns, inode) for inode in (1, other.inodes[0])}


def test_who_had_it_at_the_last_look_and_has_it_still(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Witness(whole=True)
    monkeypatch.setattr(witness, "KEEP_SECONDS", 0.0)
    assert asked.some_holders(other.inodes[0]) == (), "nobody has looked"
    asked.holders(1, time.monotonic_ns())
    assert [[holder.pid for holder in asked.some_holders(inode)] for inode in other.inodes] == [[other.pid]] * 2
    other.close_first()
    assert [[holder.pid for holder in asked.some_holders(inode)] for inode in other.inodes] == [[], [other.pid]]
