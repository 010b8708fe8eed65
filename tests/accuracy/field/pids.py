"""Whose pid is it? Namespaces, and pids that are given out again."""

from __future__ import annotations

import os
import socket

from . import processes, sockets
from .processes import me, rename
from .scenario import Run, Skip, scenario
from .senders import owner


@scenario("a process in a pid namespace of its own: its pid is asked for as the host numbers it", sockets=40)
def pid_namespace(run: Run) -> None:
    peer = sockets.listener()

    def enter() -> None:
        processes.unshare(processes.CLONE_NEWPID)
        child = processes.fork(lambda: owner(run, peer.getsockname(), run.sockets, "inet"))
        os.waitpid(child, 0)

    run.spawn(enter)
    run.wait()


@scenario(
    "the pid of an owner that ended is given to a new process, which also takes over one of its sockets", sockets=40
)
def pid_reused(run: Run) -> None:
    if not run.own_machine:
        raise Skip("sets the machine's last pid: only in a guest")
    ours, theirs = socket.socketpair()
    peer = sockets.listener()
    count = run.sockets // 2

    def first() -> None:
        rename("acc-first")
        opened = [sockets.connect(peer.getsockname()) for _ in range(2 * count)]
        for each in opened[count:]:
            run.tell(each, [me()])
            sockets.send_two(each)
        for each in opened[:count]:
            processes.send_descriptors(theirs, (each.fileno(),))

    pid = run.spawn(first)
    inherited = [socket.socket(fileno=processes.receive_descriptors(ours, 1)[0]) for _ in range(count)]
    run.wait()

    def second() -> None:
        rename("acc-second")
        for each in inherited:
            run.tell(each, [me()], openers=[pid])
            sockets.send_two(each)
        owner(run, peer.getsockname(), count, "inet", comm="acc-second")

    def when_let(gate: processes.Gate) -> None:
        gate.wait()
        second()

    for _ in range(20):
        with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as file:
            file.write(str(pid - 1))
        gate = processes.Gate()
        child = run.spawn(when_let, gate)
        if child == pid:
            gate.open()
            run.wait()
            return
        run.kill(child)
    raise Skip(f"20 tries did not bring pid {pid} back")
