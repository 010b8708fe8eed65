"""The two lists of sockets against each other and against the truth, in namespaces made for it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockpid import syscall, uapi  # fmt: skip
from sockpid.errors import SyscallError
from sockpid.event import socket_owner, socket_tuple
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel, netns, proc, proc_net, sock_diag
from sockpid.host.inet_sock import TCP_LISTEN, InetSock
from sockpid.probe import seed
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


def sock(tuple_: SocketTuple, state: int, held: socket.socket, device_told: bool = True) -> InetSock:
    return InetSock(tuple_, state, inode_of(held), socket_tuple.pack(tuple_), device_told)


def inode_of(held: socket.socket) -> int:
    return os.fstat(held.fileno()).st_ino


def seeded() -> seed.Seeds:
    """Of all there is, without a map."""
    result = seed.seed(None, lambda _key: None, 1)
    assert [line for line in result.warnings if "/proc/net/tcp" not in line] == []
    return result.seeds


def expected(namespace: netns.Namespace, opened: Sockets) -> set[InetSock]:
    """What sock_diag must list, from what the sockets themselves say."""
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
        assert set(proc_net.tcp(namespace)) == {one._replace(device_told=False) for one in truth}
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
    result = seed.seed(lambda key, value: written.setdefault(key, value) is value, written.__delitem__, room=10**6)
    said = "sockets are listed by /proc/net/tcp, slower and without their devices: denied"
    assert result.warnings == ([] if source is sock_diag else [said])
    assert result.published == len(written)
    for namespace, opened in both:
        for listed in expected(namespace, opened):
            entry = socket_owner.find(written.get, listed.key)
            found = result.seeds.by_inode(listed.inode, listed.tuple)
            assert entry is not None
            assert found is not None
            owner = entry.latest
            assert (entry.sk, entry.inode, entry.users, owner) == (0, listed.inode, 1, found.owner)
            assert (owner.pid, owner.comm, owner.how) == (os.getpid(), kernel.comm(), "seed")
            assert proc.is_exited(owner.pid, owner.start_ns) is False
            assert 0 <= time.monotonic_ns() - owner.when_ns < 60 * 10**9


@pytest.fixture(params=["sock_diag", "proc_net"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sock_diag":
        pytest.importorskip("pyroute2", reason="pip install pyroute2")
    else:
        monkeypatch.setattr(sock_diag, "load", lambda: (_ for _ in ()).throw(ImportError("denied")))
    return str(request.param)


HOLDS = """
import os, socket, sys
held = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]
print("ready", flush=True)
os.read(0, 1)
"""


@contextlib.contextmanager
def handed_on(*held: socket.socket) -> Iterator[int]:
    """A process that has these sockets open; here they are closed. Gives its pid."""
    fds = [each.fileno() for each in held]
    command = [sys.executable, "-I", "-S", "-c", HOLDS, *map(str, fds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for each in held:
            each.close()
        try:
            yield child.pid
        finally:
            child.communicate(b"\n", timeout=10)


@pytest.mark.usefixtures("source")
def test_listeners_on_one_port_are_told_apart_by_inode() -> None:
    """One of them in a process that got it from us, which has it no more; the other is shared by two."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in made:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(("127.0.0.1", made[0].getsockname()[1]))
            each.listen()
        inodes = [inode_of(each) for each in made]
        theirs = stack.enter_context(handed_on(made[0]))
        shared = stack.enter_context(handed_on(made[1].dup()))
        seeds = seeded()
        name = SocketTuple(kernel.netns_inode(), "inet", made[2].getsockname()[1], 0, "127.0.0.1", "0.0.0.0")
        held = [[holder.pid for holder in found.holders] for i in inodes if (found := seeds.by_inode(i, name))]
        assert held == [[theirs], [os.getpid(), shared], [os.getpid()]]
        assert seeds.by_tuple(name) is None
        assert seeds.listed(0, name)


def ip(*lines: str) -> None:
    """Configures links of the calling thread's namespace. Skips the test where a kind of link is not there."""
    for line in lines:
        done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"ip {line}: {done.stderr}")


def on_two_links(kind: str) -> list[socket.socket]:
    """Two sockets that differ in nothing but the device. kind: what binds them to it."""
    links = ["one0", "two0", "red"]
    for link in links[:2]:
        ip(f"link add {link} type veth peer name {link[:-1]}1", f"link set {link} up", f"link set {link[:-1]}1 up")
        ip(f"addr add 10.9.0.1/24 dev {link}", f"addr add fe80::99/64 dev {link} nodad")
    devices = ["one0", "two0"]
    if kind == "vrf":
        ip("link add red type vrf table 77", "link set red up", "link set dev two1 master red")
        ip("addr add 10.9.0.2/24 dev one1", "addr add 10.9.0.2/24 dev two1")
        devices = ["", "red"]
    opened = [socket.socket(socket.AF_INET6 if kind == "link-local" else socket.AF_INET) for _ in range(2)]
    for each, device in zip(opened, devices, strict=True):
        if kind == "link-local":
            each.bind(("fe80::99", 7000, 0, socket.if_nametoindex(device)))
        else:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            each.bind(("10.9.0.2" if kind == "vrf" else "10.9.0.1", 7000))
        each.listen()
    return opened


@pytest.mark.parametrize("kind", ["device", "link-local", "vrf"])
def test_twins_are_told_apart(source: str, kind: str, tmp_path: Path) -> None:
    with namespaces.bound(tmp_path) as namespace:
        (ours, theirs), indices = netns.run_in(
            namespace, lambda: (on_two_links(kind), {name: index for index, name in socket.if_nameindex()})
        )
        try:
            inodes = [inode_of(ours), inode_of(theirs)]
            with handed_on(theirs) as pid:
                seeds = seeded()
            family, saddr = ("inet6", "fe80::99") if kind == "link-local" else ("inet", ours.getsockname()[0])
            wild = "::" if family == "inet6" else "0.0.0.0"
            name = SocketTuple(namespace.inode, family, ours.getsockname()[1], 0, saddr, wild)
            devices = [0, indices["red"]] if kind == "vrf" else [indices["one0"], indices["two0"]]
            for inode, device, owner in zip(inodes, devices, (os.getpid(), pid), strict=True):
                found = seeds.by_inode(inode, name._replace(ifindex=device))
                assert found is not None
                assert found.owner.pid == owner
                assert seeds.by_tuple(name._replace(ifindex=device)) == (found if source == "sock_diag" else None)
        finally:
            ours.close()
            theirs.close()


def listener_in_its_own_namespace() -> tuple[socket.socket, int]:
    """A listening socket in a namespace that was made for it, where no process lives, and a descriptor of that one."""
    made: list[tuple[socket.socket, int]] = []

    def separate() -> None:
        syscall.unshare(uapi.CLONE_NEWNET)
        namespaces.loopback_up()
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        made.append((listening, os.open("/proc/thread-self/ns/net", os.O_RDONLY)))

    thread = threading.Thread(target=separate)
    thread.start()
    thread.join()
    return made[0]


@pytest.mark.parametrize("by", ["descriptor", "socket"])
def test_a_namespace_that_only_a_descriptor_or_a_socket_holds(
    source: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, fd = listener_in_its_own_namespace()
    with listening:
        namespace = os.fstat(fd).st_ino
        if by == "socket":
            os.close(fd)
            if not pidfd_getfd_works():
                pytest.skip("this kernel gives no duplicates of descriptors")
        else:
            monkeypatch.setattr(syscall, "pidfd_getfd", lambda _pid, _fd: (_ for _ in ()).throw(OSError("denied")))
        before = os.listdir("/proc/self/fd")
        seeds = seeded()
        assert os.listdir("/proc/self/fd") == before
        name = SocketTuple(namespace, "inet", listening.getsockname()[1], 0, "127.0.0.1", "0.0.0.0")
        found = seeds.by_inode(inode_of(listening), name)
        assert found is not None
        assert (found.owner.pid, seeds.by_tuple(name)) == (os.getpid(), found)
        if by == "descriptor":
            os.close(fd)
    assert source


@pytest.mark.parametrize("used", [True, False])
def test_a_namespace_that_may_not_be_entered_is_told_if_somebody_has_sockets_there(
    used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are not worth a word at each start."""
    if not pidfd_getfd_works():
        pytest.skip("this kernel gives no duplicates of descriptors")
    with namespaces.bound(tmp_path) as namespace, contextlib.ExitStack() as stack:
        if used:
            opened = netns.run_in(namespace, lambda: socket.create_server(("127.0.0.1", 0)))
            stack.callback(opened.close)
        refusal = SyscallError("setns", errno.EPERM)
        monkeypatch.setattr(syscall, "setns", lambda _fd, _kind: (_ for _ in ()).throw(refusal))
        warnings = seed.seed(None, lambda _key: None, 1).warnings
        assert any(str(namespace.inode) in line for line in warnings) is used, warnings


def pidfd_getfd_works() -> bool:
    try:
        os.close(syscall.pidfd_getfd(os.getpid(), 0))
    except SyscallError:
        return False
    return True


HIDDEN = """
import sys
sys.path.insert(0, sys.argv[1])
from sockpid.host import netns, proc; from sockpid.probe import seed
found = {each.inode: each.file for each in netns.find()}
print(found.get(int(sys.argv[2])), seed.seed(None, lambda _key: None, 1).warnings, proc.hides_others())
"""


def test_what_a_later_mount_hides_is_not_there(tmp_path: Path) -> None:
    """A namespace bound to a file below a directory that something is mounted over, and a /proc that another covers."""
    runtime = str(Path(netns.__file__).parents[1])
    with namespaces.bound(tmp_path) as namespace:
        python = shlex.join([sys.executable, "-c", HIDDEN, runtime, str(namespace.inode)])
        script = f"""
            mount -t proc proc /proc && {python}  # whatever this machine's is
            mount -t tmpfs none {shlex.quote(str(tmp_path))} && touch {shlex.quote(str(namespace.file))} &&
            mount -t proc -o hidepid=2 proc /proc && mount -t proc proc /proc && {python}
            umount /proc; {python}
        """
        command = ["unshare", "--mount", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"{namespace.file} [] False", "None [] False", "None [] True"], done


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
            seeds = seeded()
            assert seeds.by_tuple(name) is None
            assert seeds.listed(0, name)
            assert not seeds.listed(0, name._replace(sport=1))
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
