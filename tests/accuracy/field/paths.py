"""Ways into TCP besides send(): each has an entry of its own in the kernel. The parent connects, its child sends."""

from __future__ import annotations

import os
import socket
import struct
from typing import Callable

from . import processes, sockets, uring
from .processes import me, rename
from .scenario import Run, Skip, scenario
from .sharing import connected_then_child

IPPROTO_MPTCP = 262
TCP_ULP, SOL_TLS, TLS_TX = 31, 282, 1
TLS_1_2, TLS_CIPHER_AES_GCM_128 = 0x0303, 51
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000


def attempt(send: Callable[[socket.socket], None]) -> None:
    """Tries a way of sending. Raises Skip with the kernel's reason where it has no such way."""
    with sockets.listener() as peer:
        each = sockets.connect(peer.getsockname())
        try:
            send(each)
        except OSError as error:
            raise Skip(f"the kernel has it not: {error.strerror or error}") from None
        finally:
            sockets.reset(each)


@scenario("sendfile() only", hooks=("send",), how=("send",))
def sendfile(run: Run) -> None:
    path = f"/tmp/accuracy-{os.getpid()}"
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.unlink(path)
    os.write(file, b"x" * 4096)

    def send(each: socket.socket) -> None:
        for _ in range(2):
            os.sendfile(each.fileno(), file, 0, 100)

    connected_then_child(run, send)


@scenario("splice() from a pipe", hooks=("send",), how=("send",))
def splice(run: Run) -> None:
    def send(each: socket.socket) -> None:
        outlet, inlet = os.pipe()
        for _ in range(2):
            os.write(inlet, b"x")
            processes.splice(outlet, each.fileno(), 1)
        os.close(outlet)
        os.close(inlet)

    connected_then_child(run, send)


@scenario("MSG_ZEROCOPY", hooks=("send",), how=("send",))
def zerocopy(run: Run) -> None:
    def send(each: socket.socket) -> None:
        each.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        for _ in range(2):
            each.send(b"x" * 100, MSG_ZEROCOPY)

    attempt(send)
    connected_then_child(run, send)


@scenario("io_uring: a worker thread of the kernel sends in the process's name", hooks=("send",), how=("send",))
def io_uring(run: Run) -> None:
    def send(each: socket.socket) -> None:
        with uring.Ring() as ring:
            for _ in range(2):
                ring.send(each.fileno(), b"x")

    attempt(send)
    connected_then_child(run, send)


@scenario("io_uring: the polling thread sends in the process's name", hooks=("send",), how=("send",))
def io_uring_sqpoll(run: Run) -> None:
    def send(each: socket.socket) -> None:
        with uring.Ring(poll=True) as ring:
            for _ in range(2):
                ring.send(each.fileno(), b"x")

    attempt(send)
    connected_then_child(run, send)


@scenario("kernel TLS", hooks=("send",), how=("send",), sockets=40)
def ktls(run: Run) -> None:
    keys = struct.pack("=HH8s16s4s8s", TLS_1_2, TLS_CIPHER_AES_GCM_128, b"i" * 8, b"k" * 16, b"s" * 4, bytes(8))

    def send(each: socket.socket) -> None:
        each.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        each.setsockopt(SOL_TLS, TLS_TX, keys)
        sockets.send_two(each)

    attempt(send)
    connected_then_child(run, send)


def _mptcp(peer: sockets.Address) -> socket.socket:
    try:
        return sockets.connect(peer, protocol=IPPROTO_MPTCP)
    except OSError as error:
        raise Skip(f"MPTCP: {error.strerror}") from None


@scenario("Multipath TCP that fell back to one path", hooks=("connect", "mptcp"))
def mptcp(run: Run) -> None:
    peer = sockets.listener()
    _mptcp(peer.getsockname()).close()

    def owner(count: int) -> None:
        rename("acc-mptcp")
        opened = [_mptcp(peer.getsockname()) for _ in range(count)]
        for each in opened:
            run.tell(each, [me()])
            sockets.send_two(each)
        run.rest()

    for share in run.shares(8):
        run.spawn(owner, share)
    run.wait()


@scenario("Multipath TCP: the parent connects, its child sends", hooks=("mptcp",), how=("send",), sockets=40)
def mptcp_child_sends(run: Run) -> None:
    peer = sockets.listener()
    _mptcp(peer.getsockname()).close()
    rename("acc-parent")
    opened = [_mptcp(peer.getsockname()) for _ in range(run.sockets)]
    opener = me().pid

    def child() -> None:
        rename("acc-child")
        for each in opened:
            run.tell(each, [me()], openers=[opener])
            sockets.send_two(each)
        run.rest()

    run.spawn(child)
    run.wait()
