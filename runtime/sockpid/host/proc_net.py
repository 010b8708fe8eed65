"""TCP sockets of a network namespace, from /proc/net/tcp and tcp6: there is always that.

Linux kernel file Documentation/networking/proc_net_tcp.rst
"""

from __future__ import annotations

import functools
import struct
import sys

from . import netns
from .inet_sock import AF_INET, AF_INET6, TCP_TIME_WAIT, InetSock, inet_sock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


def tcp(namespace: netns.Namespace) -> Iterator[InetSock]:
    """All sockets of the namespace but those in TIME_WAIT. Raises what netns.read() raises.

    While sockets come and go the kernel may list one twice or pass one over. What device a socket is bound to is not
    in it.
    """
    yield from parse(netns.read(namespace, "tcp"), namespace.inode, AF_INET)
    try:
        text = netns.read(namespace, "tcp6")
    except FileNotFoundError:  # a kernel without IPv6
        return
    yield from parse(text, namespace.inode, AF_INET6)


def parse(text: str, inode: int, family: int, byte_order: str = sys.byteorder) -> Iterator[InetSock]:
    """The sockets of a file's text, without TIME_WAIT; `inode` is the namespace's. ValueError: not of that form."""
    mark = "<" if byte_order == "little" else ">"
    for line in text.splitlines()[1:]:
        fields = line.split(None, 10)
        if len(fields) < 10:
            raise ValueError(f"/proc/net/tcp: {line!r}")
        state = int(fields[3], 16)
        if state == TCP_TIME_WAIT:
            continue
        local, _, sport = fields[1].partition(":")
        remote, _, dport = fields[2].partition(":")
        yield inet_sock(
            netns=inode,
            family=family,
            saddr=address(local, mark),
            sport=int(sport, 16),
            daddr=address(remote, mark),
            dport=int(dport, 16),
            state=state,
            inode=int(fields[9]),
        )


@functools.lru_cache(maxsize=1024)  # a server's sockets share their local address
def address(digits: str, mark: str) -> bytes:
    """An address in network order: the kernel prints each of its 32-bit words as a number of the machine's order."""
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    return struct.pack(f"{mark}{len(words)}I", *words)
