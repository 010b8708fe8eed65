"""The end of sockets and of owners: what they left unacknowledged is still retransmitted in their name."""

from __future__ import annotations

import os
import socket
import time

from . import sockets
from .filters import DATA
from .processes import Gate, me, rename
from .scenario import Run, scenario


def sender(run: Run, peer: sockets.Address, count: int, comm: str) -> None:
    rename(comm)
    opened = [sockets.connect(peer) for _ in range(count)]
    for each in opened:
        run.tell(each, [me()])
    for each in opened:
        sockets.send_two(each)


@scenario("the owner exits right after its send")
def exited(run: Run) -> None:
    peer = sockets.listener()
    for share in run.shares(8):
        run.spawn(sender, run, peer.getsockname(), share, "acc-exited")
    run.wait()
    run.rest()


@scenario("the owner is killed with data unacknowledged")
def killed(run: Run) -> None:
    peer = sockets.listener()
    ready = Gate()

    def victim(count: int) -> None:
        sender(run, peer.getsockname(), count, "acc-killed")
        ready.open()
        run.rest(60)

    children = [run.spawn(victim, share) for share in run.shares(8)]
    for _ in children:
        ready.wait()
    for child in children:
        run.kill(child)
    run.rest()


@scenario("half closed: the owner shuts down its end, data and FIN are retransmitted")
def half_closed(run: Run) -> None:
    peer = sockets.listener()
    rename("acc-half")
    for _ in range(run.sockets):
        each = run.keep(sockets.connect(peer.getsockname()))
        run.tell(each, [me()])
        sockets.send_two(each)
        each.shutdown(socket.SHUT_WR)
    run.rest()


@scenario("FIN_WAIT1: the owner closes without having sent, and lives on", hooks=("connect",), how=("connect",))
def closed_unused(run: Run) -> None:
    peer = sockets.listener()

    def closer(count: int) -> None:
        rename("acc-closer")
        for _ in range(count):
            each = sockets.connect(peer.getsockname())
            run.tell(each, [me()], states=["FIN_WAIT1"])
            each.close()
        run.rest()

    for share in run.shares(8):
        run.spawn(closer, share)
    run.wait()


@scenario("LAST_ACK: the client hangs up first, the server closes", hooks=("accept", "send"), how=("accept", "send"))
def last_ack(run: Run) -> None:
    listening = sockets.hearing_listener()
    hung_up = Gate()

    def server() -> None:
        rename("acc-server")
        accepted = [listening.accept()[0] for _ in range(run.sockets)]
        hung_up.wait()
        for each in accepted:
            run.tell(each, [me()], states=["LAST_ACK"])
            each.send(b"x")
            each.close()
        run.rest()

    run.spawn(server)
    clients = [run.keep(sockets.connect(listening.getsockname(), deaf=DATA)) for _ in range(run.sockets)]
    for each in clients:
        each.shutdown(socket.SHUT_WR)
    hung_up.open()
    run.wait()


@scenario("the tuple is used again at once, by another process", sockets=40)
def tuple_reused(run: Run) -> None:
    peer = sockets.listener()
    ports = []
    for _ in range(run.sockets):
        with sockets.bound() as reserved:
            ports.append(reserved.getsockname())

    def turn(comm: str, last: bool) -> None:
        rename(comm)
        opened = []
        for port in ports:
            each = sockets.connect(peer.getsockname(), local=port)
            run.tell(each, [me()], since_ns=time.time_ns())
            sockets.send_two(each)
            opened.append(each)
        run.rest(3.3 if last else 0.3)
        for each in opened:
            sockets.reset(each)

    for comm in ("acc-first", "acc-second", "acc-third"):
        child = run.spawn(turn, comm, comm == "acc-third")
        run.join(child)


@scenario("sent before the probe began", before=True, hooks=("seed",), how=("seed",))
def before_probe(run: Run) -> None:
    peer = sockets.listener()
    for share in run.shares(8):
        run.spawn(_stays, run, peer.getsockname(), share)
    run.wait()


def _stays(run: Run, peer: sockets.Address, count: int) -> None:
    rename(f"acc-{os.getpid()}")
    opened = [sockets.connect(peer) for _ in range(count)]
    for each in opened:
        run.tell(each, [me()])
        sockets.send_two(each)
    run.rest(14)


@scenario(
    "sent before the probe began, and the owner ended: nobody can know",
    before=True,
    hooks=(),
    unknown=("older-than-probe",),
    sockets=40,
)
def before_probe_exited(run: Run) -> None:
    peer = sockets.listener()
    run.spawn(sender, run, peer.getsockname(), run.sockets, "acc-exited")
    run.wait()
    run.rest(14)


@scenario(
    "ten times more sockets than the probe is told to remember",
    sockets=640,
    probe=("--max-sockets", "64"),
    unknown=("evicted",),
)
def evicted(run: Run) -> None:
    peer = sockets.listener()
    for share in run.shares(8):
        run.spawn(_brief, run, peer.getsockname(), share)
    run.wait()


def _brief(run: Run, peer: sockets.Address, count: int) -> None:
    rename(f"acc-{os.getpid()}")
    opened = [sockets.connect(peer) for _ in range(count)]
    for each in opened:
        run.tell(each, [me()])
    for each in opened:
        sockets.send_two(each)
    run.rest(0.7)
