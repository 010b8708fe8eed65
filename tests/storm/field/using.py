"""Ways in and out of a socket that is open: each has an entry of its own in the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading

from tests.accuracy.field import processes, uring
from tests.accuracy.field.paths import (
    MSG_ZEROCOPY,
    SO_ZEROCOPY,
    SOL_TLS,
    TCP_ULP,
    TLS_1_2,
    TLS_CIPHER_AES_GCM_128,
    TLS_TX,
)

from . import held as tcp
from . import record
from .held import Held
from .kinds import kind
from .process import Process

TCP_USER_TIMEOUT = 18
_libc = ctypes.CDLL(None, use_errno=True)


def send_by(held: Held) -> int:
    """The record of a send() on this socket."""
    return record.TLS if held.tls else record.MPTCP if held.mptcp else record.SEND


@kind(20)
def send(process: Process) -> None:
    """sends"""
    for held in process.some(most=8):
        tcp.use(process.log, send_by(held), held, lambda held: held.sock.send(b"x"))


@kind(3)
def thread(process: Process) -> None:
    """sends by a thread"""
    chosen = process.some()

    def body() -> None:
        for held in chosen:
            tcp.use(process.log, send_by(held), held, lambda held: held.sock.send(b"x"), processes.tid())

    started = threading.Thread(target=body)
    started.start()
    started.join()


@kind(3)
def sendfile(process: Process) -> None:
    """sends by sendfile()"""
    file = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    for held in process.some():
        by = record.MPTCP if held.mptcp else record.TLS if held.tls else record.SENDFILE
        tcp.use(process.log, by, held, lambda held: os.sendfile(held.fileno, file, 0, 10))
    os.close(file)


@kind(3)
def splice(process: Process) -> None:
    """sends by splice() from a pipe"""
    outlet, inlet = os.pipe()
    for held in process.some():
        os.write(inlet, b"x")
        by = record.MPTCP if held.mptcp else record.TLS if held.tls else record.SPLICE
        tcp.use(process.log, by, held, lambda held: _splice(outlet, held.fileno, 1))
    os.close(outlet)
    os.close(inlet)


def _splice(source: int, target: int, length: int) -> int:
    moved = _libc.splice(source, None, target, None, ctypes.c_size_t(length), 2)  # SPLICE_F_NONBLOCK
    if moved < 0:
        raise OSError(ctypes.get_errno(), "splice")
    return int(moved)


@kind(3)
def splice_out(process: Process) -> None:
    """receives by splice() to a pipe"""
    outlet, inlet = os.pipe()
    for held in process.some():
        tcp.use(process.log, record.SPLICE_OUT, held, lambda held: _splice(held.fileno, inlet, 65536))
    os.close(outlet)
    os.close(inlet)


@kind(3)
def zerocopy(process: Process) -> None:
    """sends by MSG_ZEROCOPY"""
    for held in process.some():
        with contextlib.suppress(OSError):
            held.sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        by = record.MPTCP if held.mptcp else record.TLS if held.tls else record.ZEROCOPY
        tcp.use(process.log, by, held, lambda held: held.sock.send(b"x" * 100, MSG_ZEROCOPY))


@kind(1)
def io_uring(process: Process) -> None:
    """sends by io_uring"""
    if "uring" in process.missing:
        return
    try:
        ring = uring.Ring(poll=process.random.random() < 0.3)
    except OSError as error:
        process.missing["uring"] = str(error)
        return
    with ring:
        for held in process.some():
            if not (held.mptcp or held.tls):
                tcp.use(process.log, record.URING, held, lambda held: _sent(ring, held))


def _sent(ring: uring.Ring, held: Held) -> bool:
    ring.send(held.fileno, b"x")
    return True


@kind(2)
def ktls(process: Process) -> None:
    """sends by kernel TLS from now on"""
    if "tls" in process.missing:
        return
    keys = struct.pack("=HH8s16s4s8s", TLS_1_2, TLS_CIPHER_AES_GCM_128, b"i" * 8, b"k" * 16, b"s" * 4, bytes(8))
    for held in process.some(most=2):
        if held.mptcp or held.tls:
            continue
        try:
            held.sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError as error:
            process.missing["tls"] = str(error)
            return
        held.sock.setsockopt(SOL_TLS, TLS_TX, keys)
        held.tls = True
        two_by_tls(process, held)


def two_by_tls(process: Process, held: Held) -> None:
    for _ in range(2):
        tcp.use(process.log, record.TLS, held, lambda held: held.sock.send(b"x"))


@kind(6)
def receive(process: Process) -> None:
    """receives, if there is something"""
    for held in process.some():
        by = record.RECEIVE_MPTCP if held.mptcp else record.RECEIVE
        tcp.use(process.log, by, held, lambda held: held.sock.recv(1000))


@kind(4)
def shutdown(process: Process) -> None:
    """shuts down its sending end"""
    for held in process.some(most=2):
        tcp.use(process.log, record.SHUTDOWN, held, lambda held: held.sock.shutdown(socket.SHUT_WR))
        held.state = "shut"


@kind(3)
def option(process: Process) -> None:
    """sets and gets options: no use that counts"""
    for held in process.some(("connected", "shut", "connecting")):
        at = process.log.begin(record.OPTION, held.inode)
        held.sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 600000)
        held.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        process.log.end(at)


@kind(2)
def settle(process: Process) -> None:
    """sends many times by one process, so that the short way of the hook is taken"""
    for held in process.some(most=1):
        for _ in range(process.random.randint(60, 140)):
            if not tcp.use(process.log, send_by(held), held, lambda held: held.sock.send(b"x")):
                break


@kind(4)
def accept_more(process: Process) -> None:
    """accepts what waits at a listener, be it inherited or given"""
    from .opening import answer

    for listener in process.some(("listening",), most=1):
        if not listener.queued:
            answer(process, listener, process.random.randint(1, 4))
