"""Sockets that pass from one process to another: the owner is the one that used the socket last."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Callable, Tuple

from . import processes, sockets
from .filters import DATA
from .processes import Gate, me, rename
from .scenario import Run, Skip, scenario


def connected_then_child(run: Run, send: Callable[[socket.socket], None], comm: str = "acc-child") -> None:
    """Parents connect, their children send in a way of their own."""
    peer = sockets.listener()

    def parent(count: int) -> None:
        rename("acc-parent")
        opened = [sockets.connect(peer.getsockname()) for _ in range(count)]
        opener = me().pid

        def child() -> None:
            rename(comm)
            for each in opened:
                run.tell(each, [me()], openers=[opener])
                send(each)
            run.rest()
            for each in opened:
                run.count(each)

        pid = processes.fork(child)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the child failed")

    for share in run.shares(4):
        run.spawn(parent, share)
    run.wait()


@scenario("the parent connects, its child sends", hooks=("send",), how=("send",))
def fork_child_sends(run: Run) -> None:
    connected_then_child(run, sockets.send_two)


@scenario("parent and child both send: either is right")
def fork_both_send(run: Run) -> None:
    peer = sockets.listener()

    def parent(count: int) -> None:
        rename("acc-both")
        opened = [sockets.connect(peer.getsockname()) for _ in range(count)]
        told, first = Gate(), me()

        def child() -> None:
            told.wait()
            for each in opened:
                sockets.send_two(each)
            run.rest()

        pid = processes.fork(child)
        for each in opened:
            run.tell(each, [first, processes.process(pid)], openers=[first.pid], sharers=[first.pid, pid])
        told.open()
        for each in opened:
            sockets.send_two(each)
        os.waitpid(pid, 0)

    for share in run.shares(4):
        run.spawn(parent, share)
    run.wait()


def worker(run: Run, listening: socket.socket, count: int, use: Callable[[socket.socket], None]) -> None:
    """Accepts so many connections and uses each in its way."""
    rename(f"acc-worker-{os.getpid()}"[:15])
    accepted = [listening.accept()[0] for _ in range(count)]
    for each in accepted:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        run.tell(each, [me()])
        use(each)
    run.rest()
    for each in accepted:
        run.count(each)


def served(run: Run, use: Callable[[socket.socket], None], workers: int = 8, greet: bool = False) -> None:
    """A server with forked workers and clients that do not hear its data; with `greet` they say something first."""
    rename("acc-master")
    listening = sockets.hearing_listener()
    shares = run.shares(workers)
    for share in shares:
        run.spawn(worker, run, listening, share, use)
    address = listening.getsockname()
    listening.close()
    for _ in range(run.sockets):
        client = run.keep(sockets.connect(address, deaf=DATA))
        if greet:
            client.send(b"hello")
    run.wait()


@scenario("8 workers accept on one listener and send", hooks=("accept", "send"), how=("accept", "send"))
def prefork(run: Run) -> None:
    served(run, sockets.send_two)


@scenario(
    "workers accept, then only shut down: the FIN is retransmitted", hooks=("accept",), how=("accept",), sockets=60
)
def accepted_unused(run: Run) -> None:
    served(run, lambda each: each.shutdown(socket.SHUT_WR))


@scenario(
    "workers accept, receive and shut down, without a send",
    hooks=("accept", "recv"),
    how=("accept", "recv"),
    sockets=60,
)
def receive_only(run: Run) -> None:
    def use(each: socket.socket) -> None:
        each.recv(100)
        each.shutdown(socket.SHUT_WR)

    served(run, use, greet=True)


@scenario(
    "the server closes its listener while accepted sockets live", hooks=("accept", "send"), how=("accept", "send")
)
def listener_closed(run: Run) -> None:
    def server(address: Gate, listening: socket.socket) -> None:
        rename("acc-server")
        listening.listen(4096)
        address.open()
        accepted = [listening.accept()[0] for _ in range(run.sockets)]
        listening.close()
        for each in accepted:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            run.tell(each, [me()])
            sockets.send_two(each)
        run.rest()

    listening, ready = sockets.bound(), Gate()
    run.spawn(server, ready, listening)
    address = listening.getsockname()
    listening.close()
    ready.wait()
    for _ in range(run.sockets):
        run.keep(sockets.connect(address, deaf=DATA))
    run.wait()


@scenario("a descriptor passed over a Unix socket (SCM_RIGHTS): the receiver sends", hooks=("send",), how=("send",))
def fd_passed(run: Run) -> None:
    peer = sockets.listener()
    ours, theirs = socket.socketpair()

    def receiver(opener: int) -> None:
        rename("acc-receiver")
        for _ in range(run.sockets):
            each = socket.socket(fileno=processes.receive_descriptors(theirs, 1)[0])
            run.tell(each, [me()], openers=[opener])
            sockets.send_two(each)
        run.rest()

    rename("acc-giver")
    run.spawn(receiver, me().pid)
    for _ in range(run.sockets):
        opened = sockets.connect(peer.getsockname())
        processes.send_descriptors(ours, (opened.fileno(),))
        opened.close()
    run.wait()


@scenario("a descriptor taken out of another process (pidfd_getfd): the taker sends", hooks=("send",), how=("send",))
def fd_taken(run: Run) -> None:
    peer = sockets.listener()
    opened = [sockets.connect(peer.getsockname()) for _ in range(run.sockets)]
    victim = me().pid
    try:
        os.close(processes.steal(victim, opened[0].fileno()))
    except OSError as error:
        raise Skip(str(error.strerror)) from None

    def thief() -> None:
        numbers = [each.fileno() for each in opened]
        for each in opened:
            each.detach()
        os.closerange(min(numbers), max(numbers) + 1)
        rename("acc-taker")
        taken = [socket.socket(fileno=processes.steal(victim, number)) for number in numbers]
        for each in taken:
            run.tell(each, [me()], openers=[victim])
            sockets.send_two(each)
        run.rest()

    run.spawn(thief)
    run.wait()


@scenario(
    "the owner executes another program, which sends: same pid, new name", hooks=("send",), how=("connect", "send")
)
def exec_then_send(run: Run) -> None:
    _executed(run, 'for i in 1 2; do for fd in $FDS; do eval "printf x >&$fd"; done; done; read _', ("sh",))


@scenario("the owner sends, then executes another program: either name is right", hooks=("connect", "send"))
def send_then_exec(run: Run) -> None:
    _executed(run, "read _", ("acc-before", "sh"), send_before=True)


@scenario("the owner executes another program, which sends and exits", hooks=("send",))
def exec_send_exit(run: Run) -> None:
    _executed(run, 'for fd in $FDS; do eval "printf x >&$fd; printf x >&$fd"; done', ("sh",))


def _executed(run: Run, script: str, comms: Tuple[str, ...], send_before: bool = False) -> None:
    """Processes with sockets at descriptors 3 to 7, all that a shell is sure to have names for."""
    peer = sockets.listener()
    hold, held = os.pipe()

    def before() -> None:
        rename("acc-before")
        opened = [sockets.connect(peer.getsockname()) for _ in range(5)]
        for each in opened:
            run.tell(each, [me()._replace(comm=comm) for comm in comms])
            if send_before:
                sockets.send_two(each)
        hold_high = fcntl.fcntl(hold, fcntl.F_DUPFD_CLOEXEC, 100)
        out_of_the_way = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for each in opened]
        for number, copy in enumerate(out_of_the_way, 3):
            os.dup2(copy, number)
        os.dup2(hold_high, 0)
        os.execve("/bin/sh", ["sh", "-c", script], {"FDS": "3 4 5 6 7", "PATH": "/bin:/usr/bin"})

    children = [run.spawn(before) for _ in range(max(1, run.sockets // 5))]
    run.rest(4.0)
    for child in children:
        run.kill(child)
    os.close(held)
