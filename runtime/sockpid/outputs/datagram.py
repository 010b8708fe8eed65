"""A Unix datagram socket of a log daemon, which may restart."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
from typing import Optional


class Datagrams:
    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: Optional[socket.socket] = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends a send() that waits, from any thread."""
        self._stopping.set()

    def send(self, message: bytes) -> None:
        """Waits while the daemon is busy. Raises OSError if there is no daemon, or on stop()."""
        while True:
            if self._socket is None:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    made.connect(self._path)
                except OSError:
                    made.close()
                    raise
                self._socket = made
            try:
                self._socket.send(message, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                if self._stopping.is_set():
                    raise
                select.select([], [self._socket], [], 0.2)
            except OSError as error:
                self.close()
                if error.errno not in (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET):
                    raise
                # The daemon was started anew; if its socket is not there yet, connect() says so.

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
