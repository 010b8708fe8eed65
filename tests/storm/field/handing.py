"""Sockets that pass from one process to another: by fork, SCM_RIGHTS, pidfd_getfd(), and through exec."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from time import monotonic_ns
from typing import List

from tests.accuracy.field import processes

from . import held as tcp
from . import record
from .held import Held
from .kinds import kind
from .opening import connected, two
from .process import Process

ANY = ("connected", "shut", "connecting", "disconnected", "listening", "new")


def inbox(stage_run: str, worker: int) -> bytes:
    return f"\0storm-{stage_run}-{worker}".encode()


def open_inbox(process: Process, worker: int) -> None:
    process.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    process.inbox.bind(inbox(process.stage.run, worker))
    process.inbox.setblocking(False)


def _post(process: Process, text: str, descriptors: List[int]) -> bool:
    """To one of the workers. False if it could not take it."""
    to = inbox(process.stage.run, process.random.randrange(process.stage.workers))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        try:
            channel.sendmsg([text.encode()], rights, 0, to)
        except OSError:
            return False
    return True


@kind(10)
def fork(process: Process) -> None:
    """a child that has some of the sockets, or all"""
    kept = None if process.random.random() < 0.2 else process.some(ANY, 12)
    ending = process.random.choice(("exit", "end", "kill", "kill"))

    def body(child: Process) -> None:
        if child.random.random() < 0.5:
            processes.rename(f"storm-{child.random.randrange(100)}")
            child.log.note(record.RENAME, more=processes.me().comm.encode(), since=monotonic_ns() - 1_000_000)
        steps = child.random.randint(1, 80)
        child.run(0 if ending == "kill" else steps)
        if ending == "end":
            child.end()

    child = process.fork(body, kept)
    if ending == "kill":
        process.kill_later(child, process.random.random() * 1.5)
    if kept and process.random.random() < 0.5:
        for each in kept:
            process.drop(each)


@kind(8)
def give(process: Process) -> None:
    """passes a descriptor to another process (SCM_RIGHTS), and may close its own"""
    for held in process.some(ANY, 3):
        if _post(process, f"take {held.describe()}", [held.fileno]) and process.random.random() < 0.6:
            process.drop(held)


@kind(3)
def let_take(process: Process) -> None:
    """another process takes a descriptor out of this one (pidfd_getfd)"""
    for held in process.some(ANY, 2):
        _post(process, f"steal {os.getpid()} {held.fileno} {held.describe()}", [])


@kind(12)
def read_inbox(process: Process) -> None:
    """takes what others have passed"""
    if process.inbox is None:
        return
    for _ in range(8):
        since = monotonic_ns()
        try:
            text, ancillary, _, _ = process.inbox.recvmsg(1000, socket.CMSG_SPACE(4))
        except BlockingIOError:
            return
        descriptors = array.array("i")
        for level, what, data in ancillary:
            if (level, what) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data)
        word, _, rest = text.decode().partition(" ")
        if word == "take" and descriptors:
            _take(process, descriptors[0], rest, since)
        elif word == "steal":
            pid, number, rest = rest.split(" ", 2)
            since = monotonic_ns()
            try:
                descriptor = processes.steal(int(pid), int(number))
            except OSError:
                continue
            _take(process, descriptor, rest, since)
        elif word == "again":
            _again(process, rest)


def _take(process: Process, descriptor: int, text: str, since: int) -> None:
    inode = os.fstat(descriptor).st_ino
    process.log.note(record.TAKE, inode, since=since)
    try:
        held = Held.described(descriptor, text)
    except (OSError, ValueError):  # the other process has closed it, and opened something else in its place
        at = process.log.begin(record.CLOSE, inode)
        os.close(descriptor)
        process.log.end(at)
        return
    held.sock.setblocking(False)
    if held.state == "listening":
        held.local = held.sock.getsockname()[:2]
    process.pool.append(held)
    if held.state == "connected" and process.random.random() < 0.6:
        two(process, held)


@kind(3)
def reuse(process: Process) -> None:
    """ends a connection by RST and connects by the same tuple at once, here or in another process"""
    for held in process.some(most=3):
        if held.mptcp or held.device or held.local is None:
            continue
        try:
            peer = held.sock.getpeername()[:2]
        except OSError:
            continue
        process.drop(held, True)
        text = f"{held.family} {held.local[0]} {held.local[1]} {peer[0]} {peer[1]}"
        if process.fixed or process.random.random() < 0.5 or not _post(process, f"again {text}", []):
            _again(process, text)


def _again(process: Process, text: str) -> None:
    family, address, port, peer, peer_port = text.split(" ")
    held = tcp.opened(process.log, family, process.netns)
    process.pool.append(held)
    try:
        held.sock.bind((address, int(port)))
        done = tcp.connect(process.log, held, (peer, int(peer_port)))
    except OSError:
        done = False
    if not done:
        process.drop(held)
        return
    two(process, held)


@kind(2)
def execute(process: Process) -> None:
    """a child executes another program, which sends"""
    chosen = [each for each in process.some(most=4) if not (each.mptcp or each.tls)]
    if not chosen:
        return
    told, tell = os.pipe()
    since = monotonic_ns()
    before = process.random.random() < 0.5

    def body(child: Process) -> None:
        if before:
            for held in child.pool:
                two(child, held)
        high = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, 100)
        copies = [fcntl.fcntl(each.fileno, fcntl.F_DUPFD_CLOEXEC, 100) for each in child.pool]
        for number, copy in enumerate(copies, 3):
            os.dup2(copy, number)
        os.dup2(high, 9)
        numbers = " ".join(str(number) for number in range(3, 3 + len(copies)))
        script = f'for fd in {numbers}; do eval "printf x >&$fd" && echo $fd >&9; done; exec 9>&-; read _'
        outlet, _inlet = os.pipe()
        os.dup2(outlet, 0)
        os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        os.set_inheritable(_inlet, True)
        child.log.begin(record.EXEC, more=b"sh")
        os.execve("/bin/sh", ["sh", "-c", script], {"PATH": "/bin:/usr/bin"})

    try:
        child = process.fork(body, chosen)
        name = process.children[child]
    except OSError:
        os.close(told)
        raise
    finally:
        os.close(tell)
    begun = [process.log.begin(record.SEND, each.inode, 0, name.encode(), since) for each in chosen]
    with os.fdopen(told, encoding="ascii") as lines:
        done = [int(line) - 3 for line in lines]
    for number, at in enumerate(begun):
        process.log.end(at, 0 if number in done else record.FAILED)
    process.kill_later(child, 0.3 + process.random.random() * 1.5)
    if process.random.random() < 0.7:
        for each in chosen:
            process.drop(each)


@kind(1)
def threads_of_files(process: Process) -> None:
    """connects, and at once a child sends: nothing lies between them"""
    from tests.accuracy.field import filters

    from .opening import FAMILIES

    peer = process.listener("deaf", process.random.choice(FAMILIES), filters.DATA)
    held = connected(process, peer)

    def body(child: Process) -> None:
        two(child, held)

    process.fork(body, [held])
