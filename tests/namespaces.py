"""Network namespaces for tests: made, bound to a file, with loopback up, and removed again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sockpid.host import netns

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


@contextlib.contextmanager
def bound(directory: Path) -> Iterator[netns.Namespace]:
    """A namespace that no process lives in: a bind mount in `directory` keeps it."""
    path = directory / f"sockpid-{os.getpid()}-{os.urandom(3).hex()}"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "true"], check=True, timeout=10)
    try:
        namespace = netns.Namespace(os.stat(path).st_ino, [], str(path))
        netns.run_in(namespace, loopback_up)
        yield namespace
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)  # somebody may look at it
        path.unlink()


def loopback_up() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


@contextlib.contextmanager
def sockets() -> Iterator[dict[str, list[socket.socket]]]:
    """In the calling thread's namespace: per family a listening socket, a connected one, and the accepted one."""
    opened: dict[str, list[socket.socket]] = {}
    with contextlib.ExitStack() as stack:
        for family, address in (("inet", "127.0.0.1"), ("inet6", "::1"), ("mapped", "::ffff:127.0.0.1")):
            domain = socket.AF_INET if family == "inet" else socket.AF_INET6
            listener = stack.enter_context(socket.socket(domain))
            if domain == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, family == "inet6")
            listener.bind(("::" if family == "mapped" else address, 0))
            listener.listen()
            client = stack.enter_context(socket.socket(domain))
            client.connect((address, listener.getsockname()[1]))
            server = stack.enter_context(listener.accept()[0])
            opened[family] = [listener, client, server]
        yield opened
