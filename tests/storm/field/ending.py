"""How sockets and processes end, and sockets that begin again."""

from __future__ import annotations

from tests.accuracy.field import filters, processes

from . import held as tcp
from . import record
from .kinds import kind
from .opening import FAMILIES, connected, two
from .process import Process

ANY = ("connected", "shut", "connecting", "disconnected", "listening", "new")


@kind(4)
def close(process: Process) -> None:
    """closes: what is not acknowledged is sent again in nobody's name"""
    for held in process.some(ANY, 2):
        process.drop(held)


@kind(3)
def reset(process: Process) -> None:
    """closes with an RST"""
    for held in process.some(ANY, 3):
        process.drop(held, True)


@kind(3)
def reconnect(process: Process) -> None:
    """disconnects a socket and connects it to another peer (AF_UNSPEC)"""
    for held in process.some(("connected", "connecting", "disconnected"), 3):
        if held.mptcp or held.tls:
            continue
        if held.state != "disconnected":
            tcp.disconnect(process.log, held)
            if process.random.random() < 0.3:
                continue
        peer = process.listener("deaf", held.family, filters.DATA)
        tcp.hear(held)
        if held.netns == process.netns and peer.local and tcp.connect(process.log, held, peer.local):
            two(process, held)


@kind(2)
def die(process: Process) -> None:
    """a child connects, sends and exits, or is killed, at once"""
    killed = process.random.random() < 0.5
    family = process.random.choice(FAMILIES)
    peer = process.listener("deaf", family, filters.DATA)

    def body(child: Process) -> None:
        for _ in range(child.random.randint(1, 6)):
            two(child, connected(child, peer))
        if killed:
            child.run()

    child = process.fork(body, [])
    if killed:
        process.kill_later(child, process.random.random() * 0.1)


@kind(1)
def same_pid(process: Process) -> None:
    """in a guest: a child ends, and its pid is given to the next one, which has a socket of it"""
    if not process.stage.own_machine:
        return
    peer = process.listener("deaf", process.random.choice(FAMILIES), filters.DATA)
    held = connected(process, peer)

    def body(child: Process) -> None:
        two(child, held)
        two(child, connected(child, peer))

    first = process.fork(body, [held])
    process.reap(block=True)
    for _ in range(5):
        if process.fork(body, [held], first):
            break
        process.reap(block=True)


@kind(2)
def rename(process: Process) -> None:
    """the process calls itself by another name"""
    name = f"storm-{process.random.randrange(100)}"
    at = process.log.begin(record.RENAME, more=name.encode())
    processes.rename(name)
    process.log.end(at)
