"""One name for two sockets in turn: of a dead one that is still read from, and of one that moved to another process."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid.errors import PinError
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel
from sockpid.subjects.deaf import drop_everything
from tests import truth
from tests.kernel.conftest import sockpid
from tests.kernel.test_run import Probe

RESET = struct.pack("ii", 1, 0)
CHILD = [sys.executable, "-I", "-S", "-c"]

USER = """
import socket, sys
local, remote = (sys.argv[1], int(sys.argv[2])), (sys.argv[1], int(sys.argv[3]))
used = socket.socket()
used.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
used.bind(local)
used.connect(remote)
used.send(b"x")
print("used", flush=True)
for order in sys.stdin:
    try:
        used.recv(1) if order == "receive\\n" else used.send(b"x")
    except OSError as error:
        print(type(error).__name__, flush=True)
    else:
        print("used", flush=True)
"""


class User:
    """A process with one connection by a local port of our choice."""

    def __init__(self, host: str, port: int, remote: int) -> None:
        command = [*CHILD, USER, host, str(port), str(remote)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._said() == "used"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def order(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._said()

    def end(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    host = f"127.{os.urandom(1)[0] | 1}.{os.urandom(1)[0] | 1}.7"
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, 0))
        opened.listen()
        yield opened


def free_port(host: str) -> int:
    with socket.socket() as tried:
        tried.bind((host, 0))
        port: int = tried.getsockname()[1]
        return port


def test_who_reads_from_a_dead_socket_does_not_take_the_name_of_a_living_one(
    bpffs: Path, listener: socket.socket
) -> None:
    """A reset ends a connection, of which its process has not heard. Another one has the same addresses and ports when
    the first asks its socket for more."""
    directory = str(bpffs / "dead")
    host, remote = listener.getsockname()
    port = free_port(host)

    def looked_up() -> list[int]:
        found = sockpid("lookup", "--pin", directory, "--json", f"{host}:{port}", f"{host}:{remote}")
        assert found.status in (0, PinError.exit_code, 1), found
        rows = [json.loads(line) for line in found.stdout.splitlines()]
        return [row["pid"] for row in rows if row["sport"] == port]

    probe = Probe("--json", "--pin", directory)
    users = [User(host, port, remote)]
    first = listener.accept()[0]
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    first.close()
    try:
        users.append(User(host, port, remote))
        dead, living = users
        second = listener.accept()[0]
        with second:
            assert looked_up() == [living.pid]
            assert dead.order("receive") == "ConnectionResetError"
            assert dead.order("receive") == "used"  # the end of the file
            assert looked_up() == [living.pid]
            assert living.order("send") == "used"
            drop_everything(second)
            assert living.order("send") == "used"
            time.sleep(0.8)
            assert looked_up() == [living.pid]
            name = SocketTuple(kernel.netns_inode(), "inet", port, remote, host, host)
            events = truth.of(name, probe.finish())
            assert {event["pid"] for event in events} == {living.pid}
    finally:
        for user in users:
            user.end()


TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVING, SENDING = 1, 2

RESTORE = """
import socket, sys
host, port, remote, received, sent = sys.argv[1], *map(int, sys.argv[2:])
restored = socket.socket()
restored.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
restored.setsockopt(socket.IPPROTO_TCP, 19, 1)
for queue, number in ((1, received), (2, sent)):
    restored.setsockopt(socket.IPPROTO_TCP, 20, queue)
    restored.setsockopt(socket.IPPROTO_TCP, 21, number - (1 << 32) if number >> 31 else number)
restored.bind((host, port))
restored.connect((host, remote))
restored.setsockopt(socket.IPPROTO_TCP, 19, 0)
restored.send(b"restored")
sys.stdin.readline()
restored.send(b"x")
restored.send(b"x")
sys.stdin.readline()
"""


def frozen(client: socket.socket) -> list[int]:
    """The sequence numbers of a connection that is taken away without a word to its peer (TCP_REPAIR)."""
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    numbers = []
    for queue in (RECEIVING, SENDING):
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        numbers.append(client.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    client.close()
    return numbers


@pytest.mark.parametrize("probed_before", [True, False], ids=["seen-from-the-start", "seen-restored"])
def test_a_connection_that_was_moved_belongs_to_who_restored_it(listener: socket.socket, probed_before: bool) -> None:
    """As a checkpoint does: no handshake, and neither end of the connection is told. Before or after the move the probe
    begins; the peer stays."""
    host, remote = listener.getsockname()
    probe = Probe("--json", "--port", str(remote)) if probed_before else None
    client = socket.create_connection((host, remote), source_address=(host, 0))
    port = client.getsockname()[1]
    peer = listener.accept()[0]
    with peer:
        client.send(b"before")
        assert peer.recv(6) == b"before"
        time.sleep(0.1)  # for the acknowledgement
        try:
            numbers = frozen(client)
        except PermissionError:
            pytest.skip("no TCP_REPAIR here: needs CAP_NET_ADMIN")
        arguments = [host, str(port), str(remote), *map(str, numbers)]
        with subprocess.Popen([*CHILD, RESTORE, *arguments], stdin=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None
            assert peer.recv(8) == b"restored"
            time.sleep(0.1)
            probe = probe or Probe("--json", "--port", str(remote))
            drop_everything(peer)
            other.stdin.write("send\n")
            other.stdin.flush()
            time.sleep(1.2)
            name = SocketTuple(kernel.netns_inode(), "inet", port, remote, host, host)
            events = truth.of(name, probe.finish())
            other.communicate("end\n", timeout=10)
    assert len(events) >= 2
    assert {(event["pid"], event["state"], event["certain"]) for event in events} == {(other.pid, "ESTABLISHED", True)}
    assert {event["opener_pid"] for event in events} <= {other.pid, None}
