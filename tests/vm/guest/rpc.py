"""As much of a server for NFS 3 and its mount protocol (RFC 1813) as a mount and a look at it ask for."""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import Callable

NFS, MOUNT = 100003, 100005
OK, UNAVAILABLE, NOT_SUPPORTED = 0, 1, 10004
ATTRIBUTES = struct.pack(">5I8Q", 2, 0o40777, 2, 0, 0, 4096, 4096, 0, 1, 1, 0, 0, 0)
"""Of a directory: type, mode, links, user, group; size, use, device, file system, number, three times."""
AFTER = struct.pack(">I", 1) + ATTRIBUTES
ANSWERS = {
    (MOUNT, 1): struct.pack(">II8sII", OK, 8, b"a-handle", 1, 1),
    (NFS, 1): struct.pack(">I", OK) + ATTRIBUTES,
    (NFS, 4): struct.pack(">I", OK) + AFTER + struct.pack(">I", 0x3F),
    (NFS, 18): struct.pack(">I", OK) + AFTER + struct.pack(">6QI", 1, 1, 1, 1, 1, 1, 0),
    (NFS, 19): struct.pack(">I", OK) + AFTER + struct.pack(">7IQ3I", *[65536] * 6, 4096, 1 << 40, 0, 1, 0x1B),
    (NFS, 20): struct.pack(">I", OK) + AFTER + struct.pack(">6I", 32, 255, 1, 1, 0, 1),
}
"""By program and procedure; procedure 0 has no answer but that it was heard."""


def listener() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(8)
    return made


def _exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def _answer(connection: socket.socket, deafen: Callable[[socket.socket], None], when: str) -> None:
    while True:
        (length,) = struct.unpack(">I", _exactly(connection, 4))
        call = struct.unpack_from(">6I", _exactly(connection, length & 0x7FFFFFFF))
        program, procedure = call[3], call[5]
        known = program in (NFS, MOUNT)
        body = ANSWERS.get((program, procedure), struct.pack(">2I", NOT_SUPPORTED, 0) if procedure else b"")
        reply = struct.pack(">6I", call[0], 1, 0, 0, 0, OK if known else UNAVAILABLE) + (body if known else b"")
        connection.sendall(struct.pack(">I", 0x80000000 | len(reply)) + reply)
        if os.path.exists(when):
            deafen(connection)


def serve(from_whom: socket.socket, deafen: Callable[[socket.socket], None], when: str) -> None:
    """Answers until a file of that name is there; the next answer is the last."""

    def answer(connection: socket.socket) -> None:
        try:
            _answer(connection, deafen, when)
        except (EOFError, OSError):
            connection.close()

    while True:
        threading.Thread(target=answer, args=(from_whom.accept()[0],), daemon=True).start()
