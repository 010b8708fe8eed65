"""Names and control groups of processes that change them, on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid.host.cgroup import CgroupPaths
from sockpid.subjects.deaf import drop_everything
from tests.kernel.test_run import Probe

RENAMED = """
import socket, sys
open("/proc/self/comm", "w").write("worker-7")
used = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
used.sendall(b"hello")
used.recv(1)
used.sendall(b"lost")
"""

MOVED = """
import os, socket, sys
def move(group):
    open(group + "/cgroup.procs", "w").write(str(os.getpid()))
move(sys.argv[2])
used = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
used.sendall(b"hello")
move(sys.argv[3])
used.recv(1)
used.sendall(b"lost")
sys.stdin.readline()
"""


def events_of(program: str, *arguments: str, lives: bool, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """What is told of the only socket of a process that begins after the probe. lives: until the probe has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        probe = Probe("--json", "--port", str(port), *options)
        command = [sys.executable, "-I", "-S", "-c", program, str(port), *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.recv(5) == b"hello"
                drop_everything(accepted)
                accepted.sendall(b"g")
                if not lives:
                    child.wait(timeout=30)
                time.sleep(1.5)
                events = [event for event in probe.finish() if event["dport"] == port]
            child.communicate(timeout=30)
    assert {event["pid"] for event in events} <= {child.pid}
    return events


def test_a_process_is_called_as_it_called_itself_last() -> None:
    events = events_of(RENAMED, lives=False)
    assert {(event["comm"], event["opener_comm"]) for event in events} == {("worker-7", "worker-7")}
    assert events_of(RENAMED, lives=False, options=("--comm", "worker-*"))


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    mount = CgroupPaths().mount
    made = [Path(mount or "/nosuch") / f"sockpid-{os.getpid()}-{name}" for name in ("before", "after")]
    try:
        for group in made:
            group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield made
    for group in made:
        with contextlib.suppress(OSError):
            group.rmdir()


def test_a_process_is_in_the_control_group_that_it_was_moved_to(groups: list[Path]) -> None:
    before, after = groups
    events = events_of(MOVED, str(before), str(after), lives=True)
    assert {(Path(event["cgroup"]).name, event["cgroup_id"]) for event in events} == {(after.name, after.stat().st_ino)}
    path = events[0]["cgroup"]
    assert events_of(MOVED, str(before), str(after), lives=True, options=("--cgroup", path))
    assert not events_of(MOVED, str(after), str(before), lives=True, options=("--cgroup", path))


HANDED_ON = """
import array, socket, sys
given = socket.socket(fileno=int(sys.argv[1]))
_, messages, _, _ = given.recvmsg(1, socket.CMSG_LEN(4))
used = socket.socket(fileno=array.array("i", messages[0][2])[0])
given.sendall(b"r")
given.recv(1)
used.shutdown(socket.SHUT_WR)
sys.stdin.readline()
"""


@pytest.mark.parametrize("asked", ["child", "parent"])
def test_a_filter_by_process_id_goes_by_who_has_the_socket(asked: str) -> None:
    """We connect and receive, and hand the socket to a child, which only ends it: few kernels' hooks see that."""
    ours, childs = socket.socketpair()
    command = [sys.executable, "-I", "-S", "-c", HANDED_ON, str(childs.fileno())]
    with (
        ours, childs, socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[childs.fileno()]) as child,
    ):  # fmt: skip
        # With the port, nobody else's events take the time that there is to look.
        port = str(listening.getsockname()[1])
        probe = Probe("--json", "--port", port, "--pid", str(child.pid if asked == "child" else os.getpid()))
        used = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"x")
            assert used.recv(1) == b"x"
            sport = used.getsockname()[1]
            socket.send_fds(ours, [b"f"], [used.fileno()])
            used.close()
            assert ours.recv(1) == b"r"
            drop_everything(accepted)
            ours.sendall(b"g")
            time.sleep(2.5)
            events = [event for event in probe.finish() if event["sport"] == sport]
        child.communicate(b"\n", timeout=30)
    assert bool(events) == (asked == "child")
