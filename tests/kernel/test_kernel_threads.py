"""Sockets that a kernel thread works on: the process they belong to, or the kernel; never the thread."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import truth
from tests.kernel.conftest import RUNTIME

IPPROTO_MPTCP = 262
NOWHERE = "10.9.9.77"  # in the tests' own network namespace; nobody has it
CONNECTION = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
server.bind(("127.0.0.1", 0))
server.listen(4)
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
client.connect(server.getsockname())
accepted = server.accept()[0]
for one, other in ((client, accepted), (accepted, client)):
    one.sendall(b"x")
    other.recv(1)
print("established", flush=True)
if sys.stdin.readline() == "use\\n":
    client.sendall(b"x")
    accepted.recv(1)
print("used", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace where one more address can be announced to MPTCP's other end, and leads nowhere."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        pytest.skip(f"no MPTCP here: {error}")
    name = f"sockpid-mptcp-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link set v0 up",
            "link set v1 up",
            "addr add 10.9.9.1/24 dev v0",
            f"neigh add {NOWHERE} lladdr 02:00:00:00:00:01 dev v0",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        limits = "ip mptcp limits set add_addr_accepted 4 subflows 4"
        subprocess.run(["ip", "netns", "exec", name, *limits.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def syns(namespace: str, word: str) -> tuple[int, list[dict[str, Any]]]:
    """The process of an MPTCP connection, and the SYN retransmits of the subflow that a kernel thread connects."""
    inside = ["ip", "netns", "exec", namespace]
    with subprocess.Popen(
        [*inside, sys.executable, "-I", "-S", "-c", CONNECTION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline() == "established\n"
        with subprocess.Popen(
            [*RUNTIME, "run", "--json", "--no-seed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as probe:
            assert probe.stderr is not None
            while "offsets from" not in (line := probe.stderr.readline()):
                assert line
            user.stdin.write(word + "\n")
            user.stdin.flush()
            assert user.stdout.readline() == "used\n"
            announce = f"ip mptcp endpoint add {NOWHERE} dev v0 signal"
            subprocess.run([*inside, *announce.split()], check=True)
            time.sleep(3.5)  # SYNs are sent again after one second and after three
            probe.send_signal(signal.SIGTERM)
            events = truth.parse_lines(probe.communicate(timeout=30)[0])
        user.communicate("\n", timeout=30)
        return user.pid, [event for event in events if event["daddr"] == NOWHERE]


def test_a_process_that_was_never_seen_is_found_by_what_it_has_open(namespace: str) -> None:
    """Not the kernel thread that connects the other path."""
    pid, events = syns(namespace, "rest")
    assert events
    assert {(e["kind"], e["pid"], e["how"], e["reason"], e["ulp"]) for e in events} == {
        ("syn", pid, "holder", None, "mptcp")
    }


def test_the_process_of_the_connection_owns_its_subflows(namespace: str) -> None:
    pid, events = syns(namespace, "use")
    assert events
    assert {(e["kind"], e["pid"], e["found"], e["ulp"]) for e in events} == {("syn", pid, "mptcp", "mptcp")}
