"""How sockets, holders and the map's entries are put together."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sockpid import uapi
from sockpid.errors import SyscallError
from sockpid.event import event, socket_owner, socket_tuple
from sockpid.event.socket_owner import SocketOwner
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import descriptors, kernel, listing, netns, proc, proc_net, sock_diag
from sockpid.host.inet_sock import InetSock, is_link_local
from sockpid.probe import seed
from sockpid.probe.seed import Seeds

ROOT = Path(__file__).parents[3]


def sock(tuple_: SocketTuple, state: int, inode: int, device_told: bool = True) -> InetSock:
    return InetSock(tuple_, state, inode, socket_tuple.pack(tuple_), device_told)


LISTENING = sock(SocketTuple(77, "inet", 80, 0, "0.0.0.0", "0.0.0.0"), 10, 5)
CONNECTED = sock(SocketTuple(77, "inet", 80, 9000, "10.0.0.1", "10.0.0.2"), 1, 6)
ORPHAN = sock(SocketTuple(77, "inet", 80, 9001, "10.0.0.1", "10.0.0.2"), 4, 0)
REQUEST = sock(SocketTuple(77, "inet", 80, 9002, "10.0.0.1", "10.0.0.2"), 3, 0)
MASTER, WORKER, OTHER = (
    proc.Holder(100, "nginx", 50), proc.Holder(90, "nginx", 60), proc.Holder(91, "nginx", 70)
)  # fmt: skip
HELD = {5: (MASTER, WORKER), 6: (WORKER,)}


def never(key: bytes) -> None:
    pytest.fail(f"an entry that was not made is taken out: {key!r}")


class Public(dict[bytes, bytes]):
    """A map socket_to_pid, and what is done with it."""

    def insert(self, key: bytes, value: bytes) -> bool:
        return self.setdefault(key, value) is value

    def entry(self, name: SocketTuple) -> SocketOwner | None:
        return socket_owner.find(self.get, socket_tuple.pack(name))


class Host:
    """One with a namespace, some sockets, and processes that have them open."""

    def __init__(self) -> None:
        self.listings = [[CONNECTED, LISTENING, ORPHAN, REQUEST]]
        self.held: dict[int, tuple[proc.Holder, ...]] = dict(HELD)

    def tcp(self, _namespace: netns.Namespace) -> list[InetSock]:
        return self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: True)
    monkeypatch.setattr(kernel, "effective_capabilities", lambda: -1)
    monkeypatch.setattr(kernel, "time_namespace_ticks", lambda: 0)
    monkeypatch.setattr(netns, "find", lambda _held=None: [netns.Namespace(77, [1], None)])
    monkeypatch.setattr(sock_diag, "tcp", made.tcp)
    monkeypatch.setattr(descriptors, "look", lambda: descriptors.Opened(made.held, {}, {}))
    return made


def test_every_socket_gets_its_oldest_holder_and_keeps_all(host: Host) -> None:
    public = Public()
    seeds, published, warnings = seed.seed(public.insert, public.__delitem__, 100)
    assert (len(seeds), published, warnings) == (2, 2, [])
    found = seeds.by_inode(5)
    assert found is not None
    owner = found.owner
    assert (owner.pid, owner.tid, owner.comm, owner.how, owner.start_ns) == (100, 100, "nginx", "seed", 500_000_000)
    assert owner.when_ns == found.listed_ns > 0
    assert found.holders == (MASTER, WORKER)
    assert seeds.by_tuple(LISTENING.tuple) == found
    assert list(public) == [LISTENING.key, CONNECTED.key]
    assert public.entry(LISTENING.tuple) == SocketOwner(owner, 0, 5, 2, socket_owner.LATE)
    assert host.held == HELD


def test_what_was_there_is_known_from_what_was_not(host: Host) -> None:
    """A socket whose process ends meanwhile has no holder, and is older than the probe all the same."""
    del host.held[6]
    seeds = seed.seed(Public().insert, never, 100).seeds
    assert seeds.by_inode(6) is None
    assert seeds.listed(6, CONNECTED.tuple)
    assert seeds.listed(0, CONNECTED.tuple)  # closed by now
    assert seeds.listed(0, ORPHAN.tuple)
    assert not seeds.listed(7, CONNECTED.tuple)  # a later one of that name
    assert not seeds.listed(0, REQUEST.tuple)
    assert not seeds.listed(0, CONNECTED.tuple._replace(dport=1))


def test_an_inode_is_of_a_socket_with_a_name() -> None:
    """2^32 inodes later the number is another socket's. Device and, of a listener, the remote end may differ."""
    seeds = Seeds([CONNECTED, LISTENING], HELD, 1)
    name = CONNECTED.tuple
    assert seeds.by_inode(6, name) is not None
    assert seeds.by_inode(6, name._replace(ifindex=3)) is not None
    for other in (name._replace(dport=9001), name._replace(netns=78), name._replace(saddr="10.0.0.9")):
        assert seeds.by_inode(6, other) is None
    asked = SocketTuple(77, "inet6", 80, 9000, "2001:db8::1", "2001:db8::2")
    assert seeds.by_inode(5, asked) is not None
    assert seeds.by_inode(5, asked._replace(sport=81)) is None
    assert seeds.by_inode(0, name) is None
    assert seeds.by_inode(99) is None


def test_sockets_that_share_a_name_have_owners_by_inode_alone(host: Host) -> None:
    """As those that listen on one port do (SO_REUSEPORT)."""
    host.listings = [[LISTENING, LISTENING._replace(inode=8), CONNECTED]]
    host.held[8] = (OTHER,)
    public = Public()
    seeds, published, _ = seed.seed(public.insert, never, 100)
    assert (published, list(public)) == (1, [CONNECTED.key])
    assert seeds.by_tuple(LISTENING.tuple) is None
    assert [found.owner.pid for inode in (5, 8) if (found := seeds.by_inode(inode))] == [100, 91]
    assert seeds.listed(0, LISTENING.tuple)


@pytest.mark.parametrize("told", [True, False])
def test_twins_on_two_devices(host: Host, told: bool) -> None:
    """Told apart by the device, where the source knows of it; else by inode alone."""
    one = sock(CONNECTED.tuple._replace(ifindex=2 if told else 0), 1, 6, told)
    two = sock(CONNECTED.tuple._replace(ifindex=3 if told else 0), 1, 8, told)
    host.listings = [[one, two]]
    host.held[8] = (OTHER,)
    public = Public()
    seeds, published, _ = seed.seed(public.insert, never, 100)
    assert published == (2 if told else 0)
    for inode, ifindex, pid in ((6, 2, 90), (8, 3, 91)):
        name = CONNECTED.tuple._replace(ifindex=ifindex)
        found = seeds.by_inode(inode, name)
        assert found is not None
        assert found.owner.pid == pid
        assert seeds.by_tuple(name) == (found if told else None)


def test_devices_that_are_told_are_believed(host: Host) -> None:
    """Though in another namespace they are not."""
    elsewhere = sock(SocketTuple(78, "inet", 1, 2, "10.0.0.1", "10.0.0.2"), 1, 8, False)
    host.listings = [[CONNECTED, elsewhere]]
    host.held[8] = (OTHER,)
    seeds = seed.seed(None, never, 1).seeds
    assert seeds.by_tuple(elsewhere.tuple._replace(ifindex=3)) is not None
    assert seeds.by_tuple(CONNECTED.tuple._replace(ifindex=3)) is None


def test_a_socket_on_a_link_is_not_published_without_its_device(host: Host) -> None:
    """The programs would not find it at its end: they know the device."""
    name = SocketTuple(77, "inet6", 80, 9000, "fe80::1", "fe80::2")
    host.listings = [[sock(name, 1, 6, False)]]
    public = Public()
    seeds, published, _ = seed.seed(public.insert, never, 100)
    assert (published, dict(public)) == (0, {})
    assert seeds.by_tuple(name._replace(ifindex=4)) is not None


def test_link_local_addresses() -> None:
    assert [is_link_local(text) for text in ("fe80::1", "febf::1", "fec0::1", "::1", "fe8::1", "10.0.0.1")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


def test_of_an_event_of_a_closed_socket_the_map_must_say_that_no_other_has_been() -> None:
    seeds = Seeds([CONNECTED, LISTENING], HELD, 1)
    found = seeds.by_inode(6)
    assert found is not None
    entry = SocketOwner(found.owner, 0, 6, 1, socket_owner.LATE)
    said: list[SocketOwner | None] = [entry, None, entry._replace(inode=9), entry._replace(sk=0xFFFF)]
    asked = iter(said)
    assert [seeds.find(0, CONNECTED.tuple, lambda _name: next(asked)) for _ in said] == [found, None, None, None]
    assert seeds.find(6, CONNECTED.tuple, lambda _name: pytest.fail("not asked")) == found
    assert seeds.find(7, CONNECTED.tuple, lambda _name: entry) is None  # a later socket


def test_who_held_the_socket_at_the_start_is_counted_among_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "time_namespace_ticks", lambda: 0)
    seeds = Seeds([CONNECTED], {6: (MASTER, WORKER, OTHER)}, 1)
    worker = seed.process(WORKER, 1)

    def users(owner: event.Process, inode: int = 6, seen: int = 1) -> int:
        fields: dict[str, Any] = dict.fromkeys(event.FIELDS)
        fields.update(tuple=CONNECTED.tuple, inode=inode, owner=owner, users=seen)
        return seeds.users(event.Event(**fields))

    assert users(worker) == 3
    assert users(worker._replace(start_ns=worker.start_ns + 9_999_999)) == 3  # the same clock tick
    assert users(worker._replace(start_ns=worker.start_ns + 10**9)) == 4  # its id was given out again
    assert users(worker._replace(pid=1)) == 4
    assert users(worker, seen=6) == 6
    assert users(worker, inode=7) == 1


def test_a_socket_that_closes_meanwhile_leaves_no_entry(host: Host) -> None:
    """Closed for good, and closed with its addresses and ports in use again: both would name a wrong owner."""
    host.listings = [[CONNECTED, LISTENING], [CONNECTED._replace(inode=7)]]
    public = Public()
    seeds, published, _ = seed.seed(public.insert, public.__delitem__, 100)
    assert (published, dict(public)) == (0, {})
    assert len(seeds) == 2


def test_a_socket_that_is_closed_meanwhile_is_the_same_without_an_inode(host: Host) -> None:
    """As long as the kernel works on it: there is a FIN to send."""
    host.listings = [[CONNECTED, LISTENING], [CONNECTED._replace(inode=0), LISTENING]]
    public = Public()
    seeds, published, _ = seed.seed(public.insert, never, 100)
    assert published == 2
    found = seeds.find(0, CONNECTED.tuple, public.entry)
    assert found is not None
    assert found.owner.pid == 90


def test_a_socket_that_the_first_list_passes_over_is_in_the_second(host: Host) -> None:
    host.listings = [[LISTENING], [LISTENING, CONNECTED, ORPHAN]]
    seeds = seed.seed(Public().insert, never, 100).seeds
    assert seeds.by_inode(6, CONNECTED.tuple) is not None
    assert seeds.listed(0, ORPHAN.tuple)


def test_one_that_is_closed_beside_another_of_that_name_is_nobodys() -> None:
    """Twins on two devices, which the source does not tell: of the one that was closed the other is not the owner."""
    seeds = Seeds([CONNECTED, CONNECTED._replace(inode=0)], HELD, 1)
    assert seeds.by_tuple(CONNECTED.tuple) is None
    assert seeds.by_inode(6) is not None


@pytest.mark.usefixtures("host")
def test_what_the_probe_has_learnt_is_not_counted() -> None:
    assert seed.seed(lambda _key, _value: False, never, 100).published == 0


@pytest.mark.usefixtures("host")
def test_without_sight_of_ends_nothing_is_published() -> None:
    seeds, published, warnings = seed.seed(None, never, 100)
    assert (len(seeds), published, warnings) == (2, 0, [])


@pytest.mark.usefixtures("host")
def test_a_small_map_is_not_filled_beyond_its_room() -> None:
    """Events know of every seed all the same. The number that is named would do: half of it is room."""
    public = Public()
    seeds, published, warnings = seed.seed(public.insert, never, room=1)
    assert (len(seeds), published, list(public)) == (2, 1, [LISTENING.key])
    assert len(warnings) == 1
    assert re.match(r"1 of 2 sockets .* --max-sockets 4 has room", warnings[0])
    assert seed.seed(Public().insert, never, room=2).warnings == []


def test_outside_the_initial_pid_namespace_nothing_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "in_initial_pid_namespace", lambda: False)
    result = seed.seed(
        lambda _key, _value: pytest.fail("an entry with a process id that means something else"), never, 1
    )
    assert len(result.seeds) == result.published == 0
    assert "pid namespace" in result.warnings[0]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("lacks", "needed"),
    [
        ({uapi.CAP_SYS_PTRACE}, "needs CAP_SYS_PTRACE"),
        ({uapi.CAP_DAC_OVERRIDE}, None),
        ({uapi.CAP_DAC_OVERRIDE, uapi.CAP_DAC_READ_SEARCH}, "needs CAP_DAC_READ_SEARCH"),
        (set(range(64)), "needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"),
    ],
)
def test_what_may_not_be_seen_is_told(monkeypatch: pytest.MonkeyPatch, lacks: set[int], needed: str | None) -> None:
    monkeypatch.setattr(kernel, "effective_capabilities", lambda: sum(1 << n for n in range(64) if n not in lacks))
    warnings = seed.seed(None, never, 1).warnings
    assert [line.rpartition(": ")[2] for line in warnings] == ([needed] if needed else [])


def namespaces(*inodes: int) -> list[netns.Namespace]:
    return [netns.Namespace(n, [1], None) for n in inodes]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("error", [ImportError("pyroute2 cannot be used"), SyscallError("sock_diag", errno.ENOENT)])
def test_without_sock_diag_proc_net_is_read_and_said_so_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(_namespace: netns.Namespace) -> list[InetSock]:
        raise error

    monkeypatch.setattr(sock_diag, "tcp", refuse)
    monkeypatch.setattr(proc_net, "tcp", lambda _namespace: iter([CONNECTED]))
    made = listing.Listing()
    assert list(made.sockets(namespaces(77, 78))) == [CONNECTED, CONNECTED]
    assert made.warnings() == [f"sockets are listed by /proc/net/tcp, slower and without their devices: {error}"]


def test_a_namespace_that_may_not_be_entered_costs_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(namespace: netns.Namespace) -> list[InetSock]:
        if namespace.inode in (77, 79):
            raise SyscallError("setns", errno.EPERM)
        return [CONNECTED]

    def read(namespace: netns.Namespace) -> list[InetSock]:
        if namespace.inode == 79:
            raise SyscallError("setns", errno.EPERM)
        return [LISTENING]

    monkeypatch.setattr(sock_diag, "tcp", enter)
    monkeypatch.setattr(proc_net, "tcp", read)
    made = listing.Listing()
    assert list(made.sockets(namespaces(77, 78, 79))) == [LISTENING, CONNECTED]
    (warning,) = made.warnings()
    assert warning.startswith("network namespace 79 cannot be read, ")
    assert list(made.sockets(namespaces(79))) == []
    assert made.warnings() == made.warnings({78, 79}) == [warning]
    assert made.warnings({78}) == []
    assert made.unread() == {79}


NAMESPACES = """
import sys
sys.path.insert(0, "runtime")
from sockpid.host import listing, netns, proc_net
proc_net.tcp = lambda _namespace: iter([])
listing.SLOW_SECONDS = float(sys.argv[1])
made = listing.Listing()
assert list(made.sockets([netns.Namespace(n, [1], None) for n in (77, 78)])) == []
print(*made.warnings(), end="")
"""


@pytest.mark.parametrize(
    ("slow", "said"), [("60", r""), ("0", r"to list the sockets .* took \d\.\d s; .* pyroute2 installed")]
)
def test_a_host_without_pyroute2_is_told_so_where_it_matters(slow: str, said: str) -> None:
    """In a Python that has nothing but the standard library, as on most hosts."""
    command = [sys.executable, "-I", "-S", "-c", NAMESPACES, slow]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=ROOT)
    assert re.fullmatch(said, done.stdout)


def test_a_namespace_that_ends_meanwhile_had_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(namespace: netns.Namespace) -> list[InetSock]:
        if namespace.inode == 77:
            raise ProcessLookupError("gone")
        return [CONNECTED]

    monkeypatch.setattr(sock_diag, "tcp", gone)
    made = listing.Listing()
    assert list(made.sockets(namespaces(77, 78))) == [CONNECTED]
    assert made.warnings() == []


def test_pyroute2_is_not_imported_before_it_is_needed() -> None:
    code = "import sys; sys.path.insert(0, 'runtime'); import sockpid.probe.seed; assert 'pyroute2' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=30, cwd=ROOT)
