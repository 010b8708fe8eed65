"""TCP sockets of a network namespace, from the kernel's sock_diag netlink family. The one module that uses pyroute2.

pyroute2 is imported when it is needed: that alone takes longer than all else that a start does. Two of its ways are
gone round here, without leaving its interface. It builds a message object of each socket, at 0.2 ms a piece; a parser
of ours takes the fields that we want. And it cannot tell an error from an IPv4 socket in this family (NLMSG_ERROR and
AF_INET are both 2), so that a kernel without tcp_diag looks like one without sockets; the same parser tells them apart.
"""

from __future__ import annotations

import errno
import struct

from sockpid.errors import SyscallError

from . import netns
from .inet_sock import AF_INET, AF_INET6, TCP_TIME_WAIT, InetSock, inet_sock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional

    Parser = Callable[[bytes, int, int], Optional[Dict[str, Any]]]

NLMSG_ERROR = 2
NLMSG_DONE = 3
STATES = 0xFFF & ~(1 << TCP_TIME_WAIT)

MESSAGE = "=HHIIBBBB"  # struct nlmsghdr without its length, then idiag_family, idiag_state, idiag_timer, idiag_retrans
SOCKID = "!HH16s16s"  # struct inet_diag_sockid as far as the addresses
DEVICE = "=I"  # inet_diag_sockid.idiag_if: what the socket is bound to (sk_bound_dev_if)
INODE = "=I"  # inet_diag_msg.idiag_inode


def tcp(namespace: netns.Namespace) -> List[InetSock]:
    """All sockets of the namespace but those in TIME_WAIT.

    Raises ImportError without a usable pyroute2, SyscallError if the kernel refuses (ENOENT: no tcp_diag), and the
    errors of netns.run_in(). The kernel may load the module tcp_diag for this, as it does for ss(8).
    """
    load()  # here, not in a thread that has left the main thread's namespace
    return netns.run_in(namespace, lambda: dump(namespace.inode, AF_INET) + dump(namespace.inode, AF_INET6))


def load() -> Any:
    """pyroute2's DiagSocket. Raises ImportError, also where it fails otherwise: this Python may be too old."""
    try:
        from pyroute2.netlink.diag import DiagSocket
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"pyroute2 cannot be used: {error!r}") from error
    return DiagSocket


def dump(inode: int, family: int) -> List[InetSock]:
    """The sockets of one address family in the calling thread's namespace, whose inode is `inode`."""
    answer = Answer(inode)
    diag_socket = load()
    try:
        with diag_socket() as sock:
            sock.marshal.get_parser = answer.get_parser
            sock.bind()
            for _ in sock.get_sock_stats(family=family, states=STATES):
                pass
    except OSError as error:
        raise SyscallError("sock_diag", error.errno or errno.EIO) from None
    except Exception as error:  # a version whose interface is another
        raise ImportError(f"pyroute2 cannot be used: {error!r}") from error
    if answer.error or not answer.done:
        raise SyscallError("sock_diag", answer.error or errno.EIO)
    return answer.socks


class Answer:
    """What the kernel answers to one request. `done` once it has said that this was all, `error` its errno or 0."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.socks: List[InetSock] = []
        self.done = False
        self.error = 0

    def get_parser(self, _key: int, _flags: int, _sequence: int) -> Parser:
        """What pyroute2 asks for each message."""
        return self.parse

    def parse(self, data: bytes, offset: int, length: int) -> Optional[Dict[str, Any]]:
        """Takes the message of `length` bytes at `offset` of a datagram.

        Returns the header that pyroute2 looks at to know whether more follows: of a datagram's last message only.
        """
        kind, flags, sequence, pid, family, state, _timer, _retrans = struct.unpack_from(MESSAGE, data, offset + 4)
        if kind in (NLMSG_ERROR, NLMSG_DONE):  # both hold a negative errno or 0
            self.error = -struct.unpack_from("=i", data, offset + 16)[0] if length >= 20 else 0
            self.done = True
            kind = NLMSG_DONE
        else:
            sport, dport, saddr, daddr = struct.unpack_from(SOCKID, data, offset + 20)
            if family == AF_INET:
                saddr, daddr = saddr[:4], daddr[:4]
            ifindex = struct.unpack_from(DEVICE, data, offset + 56)[0]
            inode = struct.unpack_from(INODE, data, offset + 84)[0]
            self.socks.append(inet_sock(self.inode, family, saddr, sport, daddr, dport, state, inode, ifindex))
            if offset + length < len(data):
                return None
        header = {"length": length, "type": kind, "flags": flags, "sequence_number": sequence, "pid": pid}
        return {"header": {**header, "error": None}}
