"""Makes each hook fire, by what it is there for, on sockets of our own.

A mechanism that the kernel accepts need not be one that it runs: ftrace or kprobes can be switched off, a tracepoint of
that name may not be raised for what it was chosen for, and a security module may not be in use. So a hook counts as
attached once it was seen to run.
"""

from __future__ import annotations

import _socket as socket  # all that is needed; what socket.py adds takes as long to import as three programs to load
import os
import struct

from sockpid import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional, Tuple

IPPROTO_MPTCP = 262
TCP_ZEROCOPY_RECEIVE = 35  # include/uapi/linux/tcp.h
LOOPBACK = "127.0.0.1"
PROGRAMS = ("/bin/true", "/usr/bin/true")
"""Any of these is executed, for want of one that does less."""
ONCE = ("exec", "exit")
"""Hooks that are only made to fire when they are attached. They hang on tracepoints, which cannot be switched off, and
a process that comes every few minutes would look odd to who audits the host."""
SECONDS = 1.0
"""Longer than anything on loopback takes. What takes longer is no occasion."""


class Exercise:
    """Sockets on loopback. close() ends them."""

    def __init__(self) -> None:
        self._open: List[socket.socket] = []
        self._listeners: Dict[int, socket.socket] = {}
        self._ways: Dict[str, Callable[[], object]] = {
            "destroy": lambda: self._socket().close(),
            "close": lambda: self._listener().close(),
            "connect": self._connect,
            "socket_connect": self._connect,
            "mptcp-connect": lambda: self._connect(IPPROTO_MPTCP),
            "listen": lambda: self._listener().close(),
            "socket_listen": lambda: self._listener().close(),
            "accept": self._pair,
            "send": lambda: self._send(*self._pair()),
            "sendpage": self._sendfile,
            "mptcp": lambda: self._send(*self._pair(IPPROTO_MPTCP)),
            "receive": lambda: self._receive(*self._pair()),
            "mptcp-receive": lambda: self._receive(*self._pair(IPPROTO_MPTCP)),
            "splice": self._splice,
            "zerocopy": self._zerocopy,
            "shutdown": lambda: self._pair()[0].shutdown(socket.SHUT_WR),
            "exec": _execute,
            "exit": _execute,
        }

    def make(self, hook: str) -> bool:
        """Does what a hook is there for. False where there is no such occasion to be had on this host."""
        way = self._ways.get(hook)
        if way is None:
            return False
        try:
            way()
        except OSError:  # no loopback, no MPTCP, no file to send
            return False
        finally:
            self._close()
        return True

    def _socket(self, protocol: int = 0) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        opened.settimeout(SECONDS)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it leaves nothing behind
        self._open.append(opened)
        return opened

    def _listener(self, protocol: int = 0) -> socket.socket:
        listener = self._socket(protocol)
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        return listener

    def _connect(self, protocol: int = 0) -> Tuple[socket.socket, socket.socket]:
        listener = self._listener(protocol)
        client = self._socket(protocol)
        client.connect(listener.getsockname())
        return client, listener

    def _pair(self, protocol: int = 0) -> Tuple[socket.socket, socket.socket]:
        client, listener = self._connect(protocol)
        server = socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined] # what socket.py calls
        server.settimeout(SECONDS)
        self._open.append(server)
        return client, server

    @staticmethod
    def _send(client: socket.socket, _server: socket.socket) -> None:
        client.send(b"x")

    @staticmethod
    def _receive(client: socket.socket, server: socket.socket) -> None:
        client.send(b"x")
        server.recv(1)

    def _sendfile(self) -> None:
        client, _ = self._pair()
        with open("/proc/self/exe", "rb") as file:
            os.sendfile(client.fileno(), file.fileno(), 0, 64)

    def _splice(self) -> None:
        client, server = self._pair()
        client.send(b"x")
        reading, writing = os.pipe()
        try:
            syscall.splice(server.fileno(), writing, 1)
        finally:
            os.close(reading)
            os.close(writing)

    def _zerocopy(self) -> None:
        client, _ = self._pair()
        try:
            client.getsockopt(socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, 64)
        except OSError:  # nothing is mapped: it has been asked all the same
            return

    def _close(self) -> None:
        for opened in self._open:
            opened.close()
        self._open = []


def _execute() -> None:
    """A process that executes a program and ends. Raises FileNotFoundError where there is no such program."""
    path = next((path for path in PROGRAMS if os.path.exists(path)), None)
    spawn = getattr(os, "posix_spawn", None)  # not in Python 3.7, whose os.fork() would copy all of us
    if path is None or spawn is None:
        raise FileNotFoundError(PROGRAMS[0])
    os.waitpid(spawn(path, [path], {}), 0)


def switched_off() -> Optional[str]:
    """What keeps functions from being traced on this host, as far as it can be read; None for nothing."""
    for path, what in (
        ("/proc/sys/kernel/ftrace_enabled", "kernel.ftrace_enabled is 0"),
        ("/sys/kernel/debug/kprobes/enabled", "kprobes are disarmed (kprobes/enabled in debugfs is 0)"),
    ):
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == "0":
                    return what
        except OSError:
            continue
    return None
