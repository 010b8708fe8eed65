"""What the service manager is told, over sockets of our own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid.run.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The name for NOTIFY_SOCKET, and the socket behind it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@sockpid-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name[0] == "@" else name)
        listening.setblocking(False)
        yield name, listening


def told(listening: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(listening.recv(4096).decode())
    except BlockingIOError:
        return found


def test_a_whole_life(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier.from_environ(environ)
    assert environ == {"HOME": "/"}  # children shall not speak for us
    notifier.alive()
    assert (told(listening), notifier.due()) == ([], float("inf"))  # not ready: no sign of life is wanted yet
    notifier.ready("watching")
    assert told(listening) == ["READY=1\nSTATUS=watching", "WATCHDOG=1"]
    assert 9 < notifier.due() <= 10
    notifier.status("watching")
    notifier.status("1 retransmit")
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    assert told(listening)[0] == "STATUS=1 retransmit"
    notifier.reloading()
    (reloading,) = told(listening)
    first, second = reloading.splitlines()
    assert first == "RELOADING=1"
    assert before <= int(second.partition("MONOTONIC_USEC=")[2]) <= time.monotonic_ns() // 1000
    notifier.stopping()
    assert told(listening) == ["STOPPING=1\nSTATUS=ending"]


def test_signs_of_life_come_at_half_the_time(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    notifier = Notifier(name, 0.2)
    notifier.ready("")
    for _ in range(3):
        told(listening)
        notifier.alive()
        assert told(listening) == []
        time.sleep(0.11)
        assert notifier.due() == 0
        notifier.alive()
        assert told(listening) == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ(environ)
    notifier.ready("x")
    notifier.alive()
    notifier.stopping()
    assert notifier.due() == float("inf")


def test_a_manager_that_does_not_read_holds_up_nobody(manager: tuple[str, socket.socket]) -> None:
    notifier = Notifier(manager[0])
    started = time.monotonic()
    for number in range(2000):
        notifier.status(str(number))
    assert time.monotonic() - started < 10
