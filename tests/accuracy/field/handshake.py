"""Before the connection stands: SYN and SYN-ACK retransmits, and data in the SYN (TCP Fast Open)."""

from __future__ import annotations

import contextlib
import os
import socket

from . import processes, sockets
from .filters import DATA, EVERYTHING, drop
from .names import enter_network
from .processes import Gate, me, rename
from .scenario import ALIVE, Run, Skip, scenario

SECONDS = 4.3  # a SYN is sent again after 1, 2, 3 s, or 1 and 3 s
FASTOPEN = "/proc/sys/net/ipv4/tcp_fastopen"
FASTOPEN_WITHOUT_COOKIE = 0x1 | 0x2 | 0x4 | 0x200  # client, server, and either without a cookie
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN = 23


def _syn(run: Run, family: str) -> None:
    peer = sockets.listener(family, EVERYTHING)
    address = peer.getsockname()

    def caller(count: int) -> None:
        rename("acc-caller")
        for _ in range(count):
            run.tell(run.keep(sockets.begin_connect(address, family)), [me()], peer=address)
        run.rest(SECONDS)

    for share in run.shares(8):
        run.spawn(caller, share)
    run.wait()


@scenario("the SYN is not answered", hooks=("connect",), how=("connect",), kinds=("syn",))
def syn(run: Run) -> None:
    _syn(run, "inet")


@scenario("the SYN is not answered; IPv6", hooks=("connect",), how=("connect",), kinds=("syn",), sockets=40)
def syn_inet6(run: Run) -> None:
    _syn(run, "inet6")


@scenario(
    "the SYN is not answered; IPv4 through an IPv6 socket",
    hooks=("connect",),
    how=("connect",),
    kinds=("syn",),
    sockets=40,
)
def syn_mapped(run: Run) -> None:
    _syn(run, "mapped")


@scenario("the listener's accept queue is full", hooks=("connect",), how=("connect",), kinds=("syn",), sockets=40)
def syn_queue_full(run: Run) -> None:
    peer = sockets.bound()
    peer.listen(0)
    address = peer.getsockname()
    full = [run.keep(sockets.begin_connect(address)) for _ in range(2)]
    run.rest(0.1)

    def caller() -> None:
        rename("acc-caller")
        for _ in range(run.sockets):
            run.tell(run.keep(sockets.begin_connect(address)), [me()], peer=address)
        run.rest(SECONDS)

    run.spawn(caller)
    run.wait()
    del full


def _synack(run: Run, family: str) -> None:
    """The client hears nothing, so both ends repeat: SYNs are the client's, SYN-ACKs the listening process's."""
    listening, ready = sockets.bound(family), Gate()
    address = listening.getsockname()

    def server() -> None:
        rename("acc-listener")
        listening.listen(4096)
        ready.open()
        run.rest(60)

    child = run.spawn(server)
    ready.wait()
    listener = processes.process(child)
    rename("acc-caller")
    for _ in range(run.sockets):
        client = run.keep(sockets.begin_connect(address, family, deaf=EVERYTHING))
        run.tell(client, [me()], peer=address, hooks=["connect"], how=["connect"], kinds=["syn"])
        run.tell(client, [listener], local=address, peer=client.getsockname(), reported_by="synack")
    listening.close()
    run.rest(SECONDS)
    run.kill(child)


@scenario("the SYN-ACK is not answered", hooks=("listen",), how=("listen",), kinds=("synack",), sockets=60)
def synack(run: Run) -> None:
    _synack(run, "inet")


@scenario("the SYN-ACK is not answered; IPv6", hooks=("listen",), how=("listen",), kinds=("synack",), sockets=40)
def synack_inet6(run: Run) -> None:
    _synack(run, "inet6")


@scenario(
    "the SYN-ACK is not answered; IPv4 at an IPv6 listener",
    hooks=("listen",),
    how=("listen",),
    kinds=("synack",),
    sockets=40,
)
def synack_mapped(run: Run) -> None:
    _synack(run, "mapped")


def _fast_open_network() -> None:
    enter_network()
    with open(FASTOPEN, "w", encoding="ascii") as file:
        file.write(str(FASTOPEN_WITHOUT_COOKIE))
    with open(f"{FASTOPEN}_blackhole_timeout_sec", "w", encoding="ascii") as file:
        file.write("0")


def _fast_open(run: Run, peer: socket.socket, more: bool) -> None:
    address = peer.getsockname()
    rename("acc-fastopen")
    for _ in range(run.sockets):
        client = run.keep(sockets.tcp())
        client.bind((sockets.host("inet"), 0))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.sendto(b"x", MSG_FASTOPEN, address)
        run.tell(client, [me()], peer=address)
        if more:
            run.rest(0.002)
            sockets.send_two(client)
    run.rest()


@scenario("data in the SYN (TCP Fast Open), later data not answered", kinds=(*ALIVE, "syn"))
def fast_open(run: Run) -> None:
    _fast_open_network()
    peer = sockets.bound()
    drop(peer, DATA)
    peer.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 4096)
    peer.listen(4096)
    _fast_open(run, peer, True)


@scenario("data in the SYN (TCP Fast Open), which is not answered", kinds=("syn",))
def fast_open_syn(run: Run) -> None:
    _fast_open_network()
    _fast_open(run, sockets.listener(deaf=EVERYTHING), False)


@scenario(
    "the address goes away below a connection: the attempt fails (Linux 6.17)", sockets=40, kinds=("failed", "tlp")
)
def no_route(run: Run) -> None:
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1])) < (6, 17):
        raise Skip("the kernel reports no failed attempts before Linux 6.17")
    enter_network()
    peer = sockets.listener()
    rename("acc-no-route")
    opened = [run.keep(sockets.connect(peer.getsockname())) for _ in range(run.sockets)]
    for each in opened:
        run.tell(each, [me()])
        sockets.send_two(each)
    processes.lose_addresses()
    run.rest()
