"""How sockets come to be: connected, accepted, listening; of every family, and to peers that do not hear."""

from __future__ import annotations

import socket

from tests.accuracy.field import filters

from . import held as tcp
from . import record
from .held import IPPROTO_MPTCP, Held
from .kinds import kind
from .process import Process

FAMILIES = ("inet", "inet", "inet", "inet6", "mapped")


def two(process: Process, held: Held) -> None:
    """Two segments: with one, the tail loss probe waits for a delayed acknowledgement."""
    for _ in range(2):
        tcp.use(process.log, record.MPTCP if held.mptcp else record.SEND, held, lambda held: held.sock.send(b"x"))


def connected(process: Process, peer: Held, protocol: int = 0, device: bool = False) -> Held:
    """A new socket, connected. Raises OSError if it is not."""
    held = process.new(peer.family, protocol, device)
    assert peer.local
    if not tcp.connect(process.log, held, peer.local):
        process.drop(held)
        raise OSError("not connected")
    return held


def _to_deaf(process: Process, what: str, deaf: filters.Filter, protocol: int = 0, device: bool = False) -> None:
    family = process.random.choice(FAMILIES)
    for _ in range(process.random.randint(1, 8)):
        held = connected(process, process.listener(what, family, deaf), protocol, device)
        if process.random.random() < 0.7:
            two(process, held)


@kind(30)
def connect(process: Process) -> None:
    """connects to a peer that hears no data"""
    _to_deaf(process, "deaf", filters.DATA)


@kind(4)
def lossy(process: Process) -> None:
    """connects to a peer that hears two segments of three"""
    _to_deaf(process, "lossy", filters.lossy(3))


@kind(3)
def device(process: Process) -> None:
    """connects by a socket that is bound to a device"""
    _to_deaf(process, "deaf", filters.DATA, device=True)


@kind(2)
def twins(process: Process) -> None:
    """connects twice by one tuple: by a socket that is bound to a device, and by one that is not"""
    peer = process.listener("deaf", process.random.choice(FAMILIES), filters.DATA)
    first = connected(process, peer, device=True)
    second = tcp.opened(process.log, peer.family, process.netns)
    process.pool.append(second)
    assert first.local
    assert peer.local
    second.sock.bind(first.local)
    tcp.connect(process.log, second, peer.local)
    for held in process.random.sample([first, second], 2):
        if process.random.random() < 0.7:
            two(process, held)


@kind(3)
def mptcp(process: Process) -> None:
    """connects by Multipath TCP"""
    if "mptcp" in process.missing:
        return
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        process.missing["mptcp"] = str(error)
        return
    _to_deaf(process, "deaf", filters.DATA, IPPROTO_MPTCP)


@kind(3)
def syn(process: Process) -> None:
    """begins to connect to a peer that hears nothing"""
    family = process.random.choice(FAMILIES)
    peer = process.listener("silent", family, filters.EVERYTHING)
    for _ in range(process.random.randint(1, 4)):
        held = process.new(family)
        assert peer.local
        tcp.connect(process.log, held, peer.local, wait=False)


@kind(1)
def refused(process: Process) -> None:
    """connects to where nobody listens"""
    nobody = process.new("inet")
    for _ in range(process.random.randint(1, 20)):
        held = process.new("inet")
        tcp.connect(process.log, held, nobody.sock.getsockname()[:2])
        process.drop(held)
    process.drop(nobody)


def serving(process: Process, family: str, clients: int, deaf: filters.Filter, share: bool = False) -> Held:
    """A listener in the pool that hears, and clients that wait for their accept() and do not hear."""
    listener = tcp.opened(process.log, family, process.netns)
    process.pool.append(listener)
    if share:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.sock.bind((process.host(family)[0], 0))
    tcp.listen(process.log, listener, 64)
    call(process, listener, clients, deaf)
    return listener


def call(process: Process, listener: Held, clients: int, deaf: filters.Filter) -> None:
    """Connects clients that do not hear."""
    assert listener.local
    for _ in range(clients):
        held = process.new(listener.family)
        tcp.deafen(held, deaf)
        tcp.connect(process.log, held, listener.local, wait=deaf is not filters.EVERYTHING)


def answer(process: Process, listener: Held, most: int = 100) -> None:
    """Accepts what waits, and says something to some of them."""
    for _ in range(most):
        held = tcp.accept(process.log, listener)
        if held is None:
            return
        process.pool.append(held)
        if process.random.random() < 0.7:
            two(process, held)


@kind(6)
def serve(process: Process) -> None:
    """listens, is called, and accepts"""
    listener = serving(process, process.random.choice(FAMILIES), process.random.randint(1, 8), filters.DATA)
    answer(process, listener)
    if process.random.random() < 0.7:
        process.drop(listener)


@kind(3)
def prefork(process: Process) -> None:
    """listens and is called; children accept"""
    listener = serving(process, process.random.choice(FAMILIES), process.random.randint(2, 12), filters.DATA)

    def worker(child: Process) -> None:
        answer(child, listener, child.random.randint(1, 4))
        child.run(child.random.randint(1, 60))
        child.end()

    for _ in range(process.random.randint(1, 3)):
        process.fork(worker, [listener])
    if process.random.random() < 0.5:
        process.drop(listener)


@kind(3)
def synack(process: Process) -> None:
    """is called by clients that hear nothing at all"""
    listener = serving(process, process.random.choice(FAMILIES), process.random.randint(1, 4), filters.EVERYTHING)
    listener.queued = 1


@kind(2)
def reuseport(process: Process) -> None:
    """two processes listen on one port, and are called"""
    family = process.random.choice(FAMILIES)
    listener = serving(process, family, 0, filters.DATA, share=True)
    address = listener.local
    assert address
    quiet = process.random.random() < 0.5

    def other(child: Process) -> None:
        mine = tcp.opened(child.log, family, child.netns)
        child.pool.append(mine)
        mine.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mine.sock.bind(address)
        tcp.listen(child.log, mine, 64)
        call(child, mine, child.random.randint(1, 6), filters.EVERYTHING if quiet else filters.DATA)
        answer(child, mine)
        child.run(child.random.randint(1, 60))
        child.end()

    process.fork(other, [])
    call(process, listener, process.random.randint(1, 6), filters.EVERYTHING if quiet else filters.DATA)
    answer(process, listener)


@kind(2)
def network(process: Process) -> None:
    """a child in a network namespace of its own, whose addresses and ports others have too"""
    if process.fixed or "network" in process.missing:
        return
    from .namespaces import enter

    def inside(child: Process) -> None:
        enter(child)
        child.run(child.random.randint(20, 150))
        child.end()

    process.fork(inside, process.some())
