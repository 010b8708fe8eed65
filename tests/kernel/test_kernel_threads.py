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
from tests.kernel.conftest import RUNTIME, attached

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


SPEAKS = """
import socket, sys, threading
used = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
used.bind((sys.argv[1], 0))
used.connect((sys.argv[2], int(sys.argv[3])))
for line in sys.stdin:
    for _ in range(int(line)):
        used.sendall(bytes(1000))
    print("sent", flush=True)
"""
LISTENS = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
server.bind((sys.argv[1], 0))
server.listen(4)
print(server.getsockname()[1], flush=True)
accepted = server.accept()[0]
while accepted.recv(65536):
    pass
"""
ENDS = ("10.9.8.1", "10.9.8.2")
MORE = "10.9.8.3"


@pytest.fixture
def wire() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them; the first has one more address, which MPTCP does not use yet."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        pytest.skip(f"no MPTCP here: {error}")
    names = f"sockpid-one-{os.getpid()}", f"sockpid-two-{os.getpid()}"
    made: list[str] = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
        link = f"link add v0 netns {names[0]} type veth peer name v1 netns {names[1]}"
        subprocess.run(["ip", *link.split()], check=True)
        for name, device, address in zip(names, ("v0", "v1"), ENDS, strict=True):
            for command in (f"addr add {address}/24 dev {device}", "link set lo up", f"link set {device} up"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
            limits = "ip mptcp limits set add_addr_accepted 4 subflows 4"
            subprocess.run(["ip", "netns", "exec", name, *limits.split()], check=True)
        subprocess.run(["ip", "-n", names[0], *f"addr add {MORE}/24 dev v0".split()], check=True)
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)


def lose_all(namespace: str) -> None:
    """From now on what is sent to the other end goes to a machine that is not there."""
    nowhere = f"neigh replace {ENDS[1]} lladdr 02:00:00:00:00:01 dev v0 nud permanent"
    subprocess.run(["ip", "-n", namespace, *nowhere.split()], check=True)


@pytest.mark.parametrize("heard", [True, False], ids=["data", "syn"])
def test_a_path_that_another_process_asks_for_is_the_connections(wire: tuple[str, str], heard: bool) -> None:
    """Who tells the kernel of one more address connects by it himself, and is gone. What is lost then is data of the
    process that has the connection, or the SYN that it knows nothing of."""
    inside = [["ip", "netns", "exec", name] for name in wire]
    python = [sys.executable, "-I", "-S", "-c"]
    with (
        subprocess.Popen([*inside[1], *python, LISTENS, ENDS[1]], stdout=subprocess.PIPE, text=True) as server,
        subprocess.Popen(
            [*RUNTIME, "run", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as probe,
    ):
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        attached(probe)
        with subprocess.Popen(
            [*inside[0], *python, SPEAKS, *ENDS, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as user:
            assert user.stdin is not None
            assert user.stdout is not None

            def send(times: int) -> None:
                assert user.stdin is not None
                assert user.stdout is not None
                print(times, file=user.stdin, flush=True)
                assert user.stdout.readline() == "sent\n"

            send(50)
            time.sleep(0.2)
            if not heard:
                lose_all(wire[0])
            with subprocess.Popen(
                [*inside[0], *f"ip mptcp endpoint add {MORE} dev v0 subflow".split()]
            ) as asks:  # `ip netns exec` executes it: the same process
                assert asks.wait(timeout=10) == 0
            time.sleep(0.3)
            if heard:
                send(50)
                lose_all(wire[0])
                send(20)
            time.sleep(2.5)
            probe.send_signal(signal.SIGTERM)
            events = truth.parse_lines(probe.communicate(timeout=30)[0])
            server.kill()
            user.kill()
    # Connections of a run before this one may live on in a namespace that has no name any more.
    told = [event for event in events if event["saddr"] in (ENDS[0], MORE) and event["dport"] == int(port)]
    by_the_path = [event for event in told if event["saddr"] == MORE]
    assert by_the_path
    assert ("syn" in {event["kind"] for event in by_the_path}) is not heard
    assert {(event["pid"], event["ambiguous"]) for event in told} == {(user.pid, 1)}
