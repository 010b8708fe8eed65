"""Events as JSON lines to every reader of a Unix stream socket."""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import socket
import threading
import time
from typing import Deque, Dict, List

from sockpid.errors import OutputError

from .arguments import Arguments
from .base import Output, Record, gap

READERS = 256
"""More than these at a time are turned away."""

LAST_SECONDS = 0.3
"""So long readers have at the end for what still waits for them."""


class Reader:
    """One that has connected. A reader that is slow loses events; it alone does, and is told how many, in its lines."""

    def __init__(self, connection: socket.socket, room: int) -> None:
        """room: bytes that may wait for it."""
        self.connection = connection
        self.dropped = 0
        self._gap = 0
        self._room = room
        self._waiting = 0
        self._lines: Deque[bytes] = collections.deque()

    def offer(self, lines: List[bytes], host: str) -> None:
        """host: whose events these are."""
        for line in lines:
            if self._waiting <= self._room // 2:
                self.tell_gap(host)
            if self._gap or self._waiting + len(line) > self._room:
                self._gap += 1
                self.dropped += 1
            else:
                self._keep(line)

    def tell_gap(self, host: str) -> None:
        """Also when the last event has been offered: what it misses is not left untold."""
        if self._gap:
            self._keep(gap(host, self._gap).line)
            self._gap = 0

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting += len(line)

    def send(self) -> bool:
        """As much as goes without waiting. True if something is left. Raises OSError if the reader is gone."""
        while self._lines:
            piece = b"".join(self._lines.popleft() for _ in range(min(64, len(self._lines))))
            try:
                sent = self.connection.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            self._waiting -= sent
            if sent < len(piece):
                self._lines.appendleft(piece[sent:])
                return True
        return False


class Unix(Output):
    """A second thread accepts readers and sends, so that write() only hands over."""

    tells_gaps = True
    wants_documents = False

    def __init__(self, path: str, mode: int, buffer: int) -> None:
        """buffer: bytes that may wait for each reader. Raises OutputError."""
        super().__init__(f"unix:{path}")
        self._path, self._buffer = path, buffer
        self._lock = threading.Lock()
        self._readers: Dict[int, Reader] = {}
        self._over = False
        try:
            self._listening = _listen(path, mode)
        except OSError as error:
            raise OutputError(f"output socket {path}: {error.strerror or error}") from None
        self._inode = os.stat(path).st_ino
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="output-unix-readers", daemon=True)

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Unix:
        path = os.path.abspath(arguments.place())
        made = path, arguments.mode("mode", "0600"), arguments.size("buffer", "4M")
        arguments.done()
        return cls(*made)

    def start(self) -> None:
        self._thread.start()

    def write(self, pending: Deque[Record]) -> None:
        lines = [record.line for record in pending]
        with self._lock:
            for reader in self._readers.values():
                reader.offer(lines, self.host)
        pending.clear()
        self._poke()

    def _poke(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
            self._wake.send(b"x", socket.MSG_DONTWAIT)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._over:
                for key, _ in selector.select():
                    if key.fileobj is self._listening:
                        self._accept(selector)
                    elif key.fileobj is self._woken:
                        with contextlib.suppress(BlockingIOError):
                            self._woken.recv(4096)
                self._send(selector)
            with self._lock:
                for reader in self._readers.values():
                    reader.tell_gap(self.host)
            deadline = time.monotonic() + LAST_SECONDS
            while self._send(selector) and time.monotonic() < deadline:
                selector.select(0.05)
            for reader in self._readers.values():
                reader.connection.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for each in (self._listening, self._wake, self._woken):
            each.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection = self._listening.accept()[0]
        except OSError:  # it changed its mind, or we have no descriptor left
            return
        if len(self._readers) >= READERS:
            connection.close()
            return
        connection.setblocking(False)
        with self._lock:
            self._readers[connection.fileno()] = Reader(connection, self._buffer)
        selector.register(connection, selectors.EVENT_READ)

    def _send(self, selector: selectors.BaseSelector) -> bool:
        """To every reader what it takes without waiting. True if something is left."""
        waiting = False
        for fd, reader in list(self._readers.items()):
            try:
                with self._lock:
                    left = reader.send()
                if _hung_up(reader.connection):
                    raise ConnectionResetError
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
                selector.modify(reader.connection, wanted)
                waiting = waiting or left
            except OSError:
                selector.unregister(reader.connection)
                with self._lock:
                    del self._readers[fd]
                reader.connection.close()
        return waiting

    def close(self) -> None:
        self._over = True
        self._poke()
        if self._thread.ident is None:
            self._close_sockets()
        else:  # closes them itself, now or later
            self._thread.join(LAST_SECONDS + 0.1)
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:  # not one that somebody else has put there
                os.unlink(self._path)


def _hung_up(connection: socket.socket) -> bool:
    """Readers have nothing to say; what they say is thrown away."""
    try:
        return connection.recv(4096, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _listen(path: str, mode: int) -> socket.socket:
    """A socket that was left behind by a killed process is replaced; one that somebody listens on is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(f"{path} is in use by another process")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(), so that the mode is right from the first moment on.
        listening.bind(path)
        os.chmod(path, mode)
        listening.listen(64)
    except BaseException:
        listening.close()
        raise
    return listening
