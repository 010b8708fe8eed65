"""The two lists of sockets against each other and against the truth, in namespaces made for it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid import event, kernel, netns, proc, proc_net, seed, sock_diag, socket_tuple
from sockpid.errors import SyscallError
from sockpid.inet_sock import TCP_LISTEN, InetSock
from sockpid.socket_tuple import SocketTuple
from tests import namespaces

Sockets = dict[str, list[socket.socket]]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[list[tuple[netns.Namespace, Sockets]]]:
    """Two namespaces without processes, whose sockets this process holds from outside."""
    with namespaces.bound(tmp_path) as one, namespaces.bound(tmp_path) as two:
        contexts = [namespaces.sockets(), namespaces.sockets()]
        opened = [netns.run_in(n, c.__enter__) for n, c in zip((one, two), contexts, strict=True)]
        try:
            yield list(zip((one, two), opened, strict=True))
        finally:
            for context in contexts:
                context.__exit__(None, None, None)


def sock(tuple_: SocketTuple, state: int, held: socket.socket) -> InetSock:
    return InetSock(tuple_, state, os.fstat(held.fileno()).st_ino, socket_tuple.pack(tuple_))


def expected(namespace: netns.Namespace, opened: Sockets) -> set[InetSock]:
    """What must be listed, from what the sockets themselves say."""
    found = set()
    for family, (listener, client, server) in opened.items():
        wild = "0.0.0.0" if family == "inet" else "::"
        local = "127.0.0.1" if family == "inet" else "::" if family == "mapped" else "::1"
        name = "inet" if family == "inet" else "inet6"
        tuple_ = SocketTuple(namespace.inode, name, listener.getsockname()[1], 0, local, wild)
        found.add(sock(tuple_, TCP_LISTEN, listener))
        name, address = ("inet6", "::1") if family == "inet6" else ("inet", "127.0.0.1")
        for end in (client, server):
            ports = end.getsockname()[1], end.getpeername()[1]
            found.add(sock(SocketTuple(namespace.inode, name, *ports, address, address), 1, end))
    return found


def test_both_sources_list_what_there_is(both: list[tuple[netns.Namespace, Sockets]]) -> None:
    pytest.importorskip("pyroute2", reason="pip install pyroute2")
    for namespace, opened in both:
        truth = expected(namespace, opened)
        assert len(truth) == 9
        assert set(proc_net.tcp(namespace)) == truth
        assert set(sock_diag.tcp(namespace)) == truth


def test_the_main_thread_stays_where_it_is(both: list[tuple[netns.Namespace, Sockets]]) -> None:
    own = kernel.netns_inode()
    for namespace, _ in both:
        inside = netns.run_in(namespace, lambda: os.stat("/proc/thread-self/ns/net").st_ino)
        assert inside == namespace.inode != own
        assert kernel.netns_inode() == os.stat("/proc/thread-self/ns/net").st_ino == own
        with pytest.raises(ZeroDivisionError):
            netns.run_in(namespace, lambda: 1 // 0)


def test_namespaces_are_found_and_read_without_a_process(both: list[tuple[netns.Namespace, Sockets]]) -> None:
    found = {namespace.inode: namespace for namespace in netns.find()}
    assert os.getpid() in found[kernel.netns_inode()].pids
    for namespace, _ in both:
        assert found[namespace.inode] == namespace
        assert netns.read(namespace, "dev").count("lo:") == 1
        with pytest.raises(FileNotFoundError):
            netns.read(namespace, "no-such-file")
    with pytest.raises(FileNotFoundError):
        netns.read(found[kernel.netns_inode()], "no-such-file")


def test_a_namespace_that_is_gone(tmp_path: Path) -> None:
    with namespaces.bound(tmp_path) as namespace:
        pass
    with pytest.raises(ProcessLookupError):
        netns.run_in(namespace, lambda: None)
    stale = namespace._replace(pids=[os.getpid()])  # the id of a process that is elsewhere
    with pytest.raises(ProcessLookupError):
        netns.read(stale, "tcp")


@pytest.mark.parametrize("source", [sock_diag, proc_net], ids=["sock_diag", "proc_net"])
def test_seed_names_this_process(
    both: list[tuple[netns.Namespace, Sockets]], source: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is sock_diag:
        pytest.importorskip("pyroute2", reason="pip install pyroute2")
    else:
        monkeypatch.setattr(sock_diag, "load", lambda: (_ for _ in ()).throw(ImportError("denied")))
    written: dict[bytes, bytes] = {}
    result = seed.seed(lambda key, value: written.setdefault(key, value) is value, written.__delitem__)
    assert result.warnings == (
        [] if source is sock_diag else ["sockets are listed by /proc/net/tcp, which is as good but slower: denied"]
    )
    assert result.seeded == len(written)
    for namespace, opened in both:
        for listed in expected(namespace, opened):
            owner = event.unpack_process(written[listed.key])
            assert owner is not None
            assert (owner.pid, owner.comm, owner.how) == (os.getpid(), kernel.comm(), "seed")
            assert proc.is_exited(owner.pid, owner.start_ns) is False
            assert 0 <= time.monotonic_ns() - owner.when_ns < 60 * 10**9
            assert listed.tuple not in result.orphans


def test_a_closed_socket_that_the_kernel_works_on_is_an_orphan(tmp_path: Path) -> None:
    """Its data is not acknowledged: the peer has no room. No inode any more, but a FIN to send."""

    def close_with_data() -> tuple[SocketTuple, list[socket.socket]]:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10_000):
                client.send(bytes(65536))
        name = SocketTuple(
            os.stat("/proc/thread-self/ns/net").st_ino, "inet", client.getsockname()[1], client.getpeername()[1],
            "127.0.0.1", "127.0.0.1",
        )  # fmt: skip
        client.close()
        return name, [listener, server]

    with namespaces.bound(tmp_path) as namespace:
        name, opened = netns.run_in(namespace, close_with_data)
        try:
            warnings: list[str] = []
            assert name in seed.owners(seed.tcp_sockets(warnings)).orphans
        finally:
            for held in opened:
                held.close()


def test_an_error_of_sock_diag_is_not_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    diag_socket = pytest.importorskip("pyroute2.netlink.diag", reason="pip install pyroute2").DiagSocket
    asked = diag_socket.get_sock_stats
    monkeypatch.setattr(
        diag_socket, "get_sock_stats", lambda self, **options: asked(self, protocol=200, **options)
    )  # a protocol that no diag module is for
    with pytest.raises(SyscallError, match="sock_diag: No such file"):
        sock_diag.dump(1, socket.AF_INET)
