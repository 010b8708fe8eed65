"""The short way of a known owner: it is taken only while it is true."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from sockpid.event import socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer

USES = 256  # after so many uses the owner is looked up again (sockpid.bpf.c)


@pytest.fixture(params=["task_btf", ""])
def tracer(request: pytest.FixtureRequest) -> Iterator[Tracer]:
    """With the current task's start read by a helper, and as this kernel can."""
    with Tracer.open(Options(deny=frozenset({request.param} - {""}))) as opened:
        yield opened


class Connection:
    """Both ends of one, in this process."""

    def __init__(self, listener: socket.socket) -> None:
        self.client = socket.create_connection(listener.getsockname())
        self.server = listener.accept()[0]

    def key(self, end: socket.socket) -> SocketTuple:
        (saddr, sport), (daddr, dport) = end.getsockname(), end.getpeername()
        return SocketTuple(os.stat("/proc/self/ns/net").st_ino, "inet", sport, dport, saddr, daddr)

    def close(self) -> None:
        self.client.close()
        self.server.close()


def entries(tracer: Tracer, end: socket.socket) -> list[tuple[bytes, bytes]]:
    """Keys and values in owner_by_sock of sockets with the ports of this one."""
    ports = end.getsockname()[1], end.getpeername()[1]
    owners = tracer.collection.maps["owner_by_sock"]
    found = []
    for key in set(owners.keys()):
        value = owners.lookup(key)
        # struct owner: the entry of 88 bytes, the opener of 32, then the tuple, with ports behind 10 bytes
        if value is not None and struct.unpack_from("=HH", value, 88 + 32 + 10) == ports:
            found.append((key, value))
    return found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def connection(listener: socket.socket) -> Iterator[Connection]:
    opened = Connection(listener)
    yield opened
    opened.close()


def test_processes_that_use_a_socket_in_turn(tracer: Tracer, connection: Connection) -> None:
    """Also many times each, so that the owner is well settled when the other one comes."""
    orders, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        while os.read(orders[0], 1) == b"s":
            connection.client.send(b"x")
            os.write(done[1], b"d")
        os._exit(0)
    try:
        for times in (1, 1, 3, USES - 1, USES, USES + 1, 2, 1):
            for _ in range(times):
                connection.client.send(b"x")
            owner = tracer.owner_of(connection.key(connection.client))
            assert owner is not None
            assert owner.pid == os.getpid()
            for _ in range(times):
                os.write(orders[1], b"s")
                assert os.read(done[0], 1) == b"d"
            owner = tracer.owner_of(connection.key(connection.client))
            assert owner is not None
            assert owner.pid == child
    finally:
        os.write(orders[1], b"q")
        os.waitpid(child, 0)
        for end in (*orders, *done):
            os.close(end)


def test_a_settled_owner_is_a_process_whichever_of_its_threads_comes(tracer: Tracer, connection: Connection) -> None:
    """The thread is told anew with the owner, which is renewed when it has grown old and its uses run over."""

    def latest() -> int:
        """The thread that owner_by_sock has for the socket."""
        ((_, value),) = entries(tracer, connection.client)
        return int(struct.unpack_from("=Q", value)[0] & 0xFFFFFFFF)

    def work(times: int) -> None:
        ids.append(threading.get_native_id())
        for _ in range(times):
            connection.client.send(b"x")

    ids: list[int] = []
    connection.client.send(b"x")
    assert latest() == threading.get_native_id()
    for times in (1, USES + 1):
        time.sleep(0.02)
        thread = threading.Thread(target=work, args=(times,))
        thread.start()
        thread.join()
        assert latest() == (threading.get_native_id() if times == 1 else ids[-1])


def test_an_evicted_owner_is_learnt_again(tracer: Tracer, connection: Connection) -> None:
    owners = tracer.collection.maps["owner_by_sock"]
    connection.client.send(b"x")
    connection.client.send(b"x")
    ((key, _),) = entries(tracer, connection.client)
    owners.delete(key)
    tracer.collection.maps["socket_to_pid"].delete(socket_tuple.pack(connection.key(connection.client)))
    for _ in range(USES):
        connection.client.send(b"x")
    owner = tracer.owner_of(connection.key(connection.client))
    assert owner is not None
    assert owner.pid == os.getpid()


def test_sockets_at_addresses_that_were_used_before(tracer: Tracer, listener: socket.socket) -> None:
    """A struct sock is given out again at once, here to the same thread. Each socket is learnt all the same."""
    for _ in range(200):
        connection = Connection(listener)
        for end in (connection.client, connection.server):
            end.send(b"x")
            owner = tracer.owner_of(connection.key(end))
            assert owner is not None, end
            assert owner.pid == os.getpid()
        connection.close()
