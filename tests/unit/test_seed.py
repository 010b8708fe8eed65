"""How sockets, holders and the map's entries are put together."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sockpid import event, kernel, netns, proc, proc_net, seed, sock_diag, socket_tuple
from sockpid.errors import SyscallError
from sockpid.inet_sock import InetSock
from sockpid.socket_tuple import SocketTuple

ROOT = Path(__file__).parents[2]


def sock(tuple_: SocketTuple, state: int, inode: int) -> InetSock:
    return InetSock(tuple_, state, inode, socket_tuple.pack(tuple_))


LISTENING = sock(SocketTuple(77, "inet", 80, 0, "0.0.0.0", "0.0.0.0"), 10, 5)
CONNECTED = sock(SocketTuple(77, "inet", 80, 9000, "10.0.0.1", "10.0.0.2"), 1, 6)
ORPHAN = sock(SocketTuple(77, "inet", 80, 9001, "10.0.0.1", "10.0.0.2"), 4, 0)
REQUEST = sock(SocketTuple(77, "inet", 80, 9002, "10.0.0.1", "10.0.0.2"), 3, 0)
MASTER, WORKER = proc.Holder(100, "nginx", 50), proc.Holder(90, "nginx", 60)


def never(key: bytes) -> None:
    pytest.fail(f"an entry that was not made is taken out: {key!r}")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with one namespace, four sockets, and two processes that share two of them."""
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: True)
    monkeypatch.setattr(kernel, "effective_capabilities", lambda: -1)
    monkeypatch.setattr(kernel, "time_namespace_ticks", lambda: 0)
    monkeypatch.setattr(netns, "find", lambda: [netns.Namespace(77, [1], None)])
    monkeypatch.setattr(sock_diag, "tcp", lambda _namespace: [CONNECTED, LISTENING, ORPHAN, REQUEST])
    held = {5: [MASTER, WORKER], 6: [WORKER]}
    monkeypatch.setattr(proc, "holders", lambda inodes: {i: held[i] for i in inodes if i in held})


@pytest.mark.usefixtures("host")
def test_every_socket_gets_its_oldest_holder() -> None:
    written: dict[bytes, bytes] = {}
    result = seed.seed(lambda key, value: written.setdefault(key, value) is value, written.__delitem__)
    assert result == seed.SeedResult(2, frozenset([ORPHAN.tuple]), {LISTENING.tuple: 2}, [])
    owner = event.unpack_process(written[socket_tuple.pack(LISTENING.tuple)])
    assert owner is not None
    assert (owner.pid, owner.tid, owner.comm, owner.how, owner.start_ns) == (100, 100, "nginx", "seed", 500_000_000)
    assert owner.when_ns > 0
    assert list(written) == [socket_tuple.pack(LISTENING.tuple), socket_tuple.pack(CONNECTED.tuple)]


@pytest.mark.usefixtures("host")
def test_a_socket_that_closes_meanwhile_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed for good, and closed with its addresses and ports in use again: both would name a wrong owner."""
    reused = CONNECTED._replace(inode=7)
    listings = iter([[CONNECTED, LISTENING], [reused]])
    monkeypatch.setattr(sock_diag, "tcp", lambda _namespace: next(listings))
    written: dict[bytes, bytes] = {}
    result = seed.seed(lambda key, value: written.setdefault(key, value) is value, written.__delitem__)
    assert written == {}
    assert result.seeded == 0


@pytest.mark.usefixtures("host")
def test_what_the_probe_has_learnt_is_not_counted() -> None:
    assert seed.seed(lambda _key, _value: False, never).seeded == 0


@pytest.mark.usefixtures("host")
def test_a_small_map_is_not_filled_beyond_its_room() -> None:
    written: dict[bytes, bytes] = {}
    result = seed.seed(lambda key, value: written.setdefault(key, value) is value, written.__delitem__, room=1)
    assert list(written) == [socket_tuple.pack(LISTENING.tuple)]
    assert result.warnings == ["1 sockets older than the probe stay unknown: more than 1; --max-sockets"]


def test_outside_the_initial_pid_namespace_nothing_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: False)
    result = seed.seed(lambda _key, _value: pytest.fail("an entry with a process id that means something else"), never)
    assert result.seeded == 0
    assert "pid namespace" in result.warnings[0]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("error", [ImportError("pyroute2 cannot be used"), SyscallError("sock_diag", errno.ENOENT)])
def test_without_sock_diag_proc_net_is_read_and_said_so_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(_namespace: netns.Namespace) -> list[InetSock]:
        raise error

    monkeypatch.setattr(sock_diag, "tcp", refuse)
    monkeypatch.setattr(proc_net, "tcp", lambda _namespace: iter([CONNECTED]))
    monkeypatch.setattr(netns, "find", lambda: [netns.Namespace(n, [1], None) for n in (77, 78)])
    warnings: list[str] = []
    assert list(seed.tcp_sockets(warnings)) == [CONNECTED, CONNECTED]
    assert warnings == [f"sockets are listed by /proc/net/tcp, which is as good but slower: {error}"]


NAMESPACES = """
import sys
sys.path.insert(0, "runtime")
from sockpid import netns, proc_net, seed
netns.find = lambda: [netns.Namespace(n, [1], None) for n in (77, 78)]
proc_net.tcp = lambda _namespace: iter([])
seed.SLOW_SECONDS = float(sys.argv[1])
warnings = []
assert list(seed.tcp_sockets(warnings)) == []
print(*warnings, end="")
"""


@pytest.mark.parametrize(
    ("slow", "said"), [("60", r""), ("0", r"to list the sockets .* took \d\.\d s; .* pyroute2 installed")]
)
def test_a_host_without_pyroute2_is_told_so_where_it_matters(slow: str, said: str) -> None:
    """In a Python that has nothing but the standard library, as on most hosts."""
    command = [sys.executable, "-I", "-S", "-c", NAMESPACES, slow]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=ROOT)
    assert re.fullmatch(said, done.stdout)


@pytest.mark.usefixtures("host")
def test_a_namespace_that_ends_meanwhile_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(namespace: netns.Namespace) -> list[InetSock]:
        if namespace.inode == 77:
            raise ProcessLookupError("gone")
        return [CONNECTED]

    monkeypatch.setattr(sock_diag, "tcp", gone)
    monkeypatch.setattr(netns, "find", lambda: [netns.Namespace(n, [1], None) for n in (77, 78)])
    warnings: list[str] = []
    assert list(seed.tcp_sockets(warnings)) == [CONNECTED]
    assert warnings == ["network namespace 77 cannot be read: gone"]


def test_pyroute2_is_not_imported_before_it_is_needed() -> None:
    code = "import sys; sys.path.insert(0, 'runtime'); import sockpid.seed; assert 'pyroute2' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=30, cwd=ROOT)


def test_process_is_packed_as_it_is_unpacked() -> None:
    value = event.Process(94, 95, 11, 22, 33, "seed", 0, "a name of 15 by")
    assert event.unpack_process(seed.pack_process(value)) == value
    longer = seed.pack_process(value._replace(comm="a name of more than 15 bytes"))
    assert event.unpack_process(longer) == value._replace(comm="a name of more ")
