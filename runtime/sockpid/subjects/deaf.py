"""Sockets of our own that the kernel retransmits for, and whose every property we know.

A receiver with a filter that drops everything never acknowledges, so the kernel retransmits over loopback: no root,
no netem, no second host. Two segments in flight bring a tail loss probe after some milliseconds and the
retransmission timer after 200 and 400 ms; the sender shuts down in between, so that two states are seen. A thin
stream's timer does not back off: so what counts timeouts in a row is told from what counts by how much they back off.
"""

from __future__ import annotations

import os
import socket
import struct

from sockpid import syscall, uapi
from sockpid.event import event
from sockpid.event.socket_tuple import SocketTuple
from sockpid.host import kernel
from sockpid.host.noise import random_bytes
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Union

    from sockpid.event.socket_owner import SocketOwner

FAMILIES = ("inet", "inet6", "mapped")
"""What a pair can be of: IPv4, IPv6, or IPv4 through IPv6 sockets."""
MPTCP = "mptcp"
"""And this: an MPTCP socket that talks to one that knows only TCP."""
IPPROTO_MPTCP = 262
LOOPBACK, LOOPBACK_IFINDEX = "lo", 1  # include/net/flow.h: the same in every network namespace
BOUND = ("inet", "inet6")
"""Families whose sender is bound to that device, where we may do so; for others the kernel must say that it is not."""


class Info(NamedTuple):
    """Of struct tcp_info (include/uapi/linux/tcp.h): timeouts in a row, round trip time in us, segments, segments, and
    what congestion control is at (enum tcp_ca_state).

    What is None was not to be had for the moment of an event.
    """

    retransmits: Optional[int]
    rtt: Optional[int]
    snd_cwnd: Optional[int]
    total_retrans: int
    ca_state: Optional[int] = None


class Pair:
    """Two connected sockets on loopback, the receiving one deaf."""

    def __init__(self, family: str, bind: bool = False) -> None:
        """bind: to the loopback device, where that may be. Raises OSError where the host has no such addresses."""
        self.family = family
        self.events: List[event.Event] = []
        self.infos: List[Info] = []
        self.others: List[SocketOwner] = []
        """What socket_to_pid said of the accepted end and of the listener, once that was asked."""
        self._ending = False
        noise = random_bytes(4)
        v4 = [f"127.{noise[i] | 1}.{noise[i + 1] | 2}.{2 + i}" for i in (0, 2)]
        protocol = IPPROTO_MPTCP if family == MPTCP else 0
        local, remote = (
            v4 if not domain_v6(family) else [f"::ffff:{a}" for a in v4] if family == "mapped" else ["::1"] * 2
        )
        domain = socket.AF_INET6 if domain_v6(family) else socket.AF_INET
        ifindex = 0
        self._sockets: List[socket.socket] = []
        try:
            listener = self._keep(socket.socket(domain, socket.SOCK_STREAM))
            if family == "mapped":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((remote, 0))
            listener.listen(1)
            self.sender = self._keep(socket.socket(domain, socket.SOCK_STREAM, protocol))
            # BBR keeps to exponential backoff; Reno is in every kernel. MPTCP does not know all of these options.
            _ = (
                _set(self.sender, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                and _set(self.sender, socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
                and _set(self.sender, socket.IPPROTO_TCP, uapi.TCP_THIN_LINEAR_TIMEOUTS, 1)
            )
            if family == "inet":  # the neighbour of the bit that marks the kernel's own sockets; nothing to TCP
                self.sender.setsockopt(socket.SOL_SOCKET, uapi.SO_NO_CHECK, 1)
            if bind and family in BOUND:
                device = LOOPBACK.encode() + b"\0"
                if _set(self.sender, socket.SOL_SOCKET, uapi.SO_BINDTODEVICE, device):  # CAP_NET_RAW, before Linux 5.7
                    ifindex = LOOPBACK_IFINDEX
            self.sender.bind((local, 0))
            self.sender.connect(listener.getsockname())
            receiver = self._keep(listener.accept()[0])
            drop_everything(receiver)
        except BaseException:
            self.close()
            raise
        self.tuple = SocketTuple(
            netns=kernel.netns_inode(),
            family="inet6" if family == "inet6" else "inet",
            sport=self.sender.getsockname()[1],
            dport=self.sender.getpeername()[1],
            saddr=v4[0] if family != "inet6" else local,
            daddr=v4[1] if family != "inet6" else remote,
            ifindex=ifindex,
        )
        self._inode = os.fstat(self.sender.fileno()).st_ino

    def _keep(self, opened: socket.socket) -> socket.socket:
        self._sockets.append(opened)
        return opened

    def send(self) -> None:
        """Two segments, so that the tail loss probe need not wait for a delayed acknowledgement."""
        for _ in range(2):
            self.sender.send(b"x")

    def likeness(self, seen: event.Event) -> int:
        """How much an event has of our sending socket: from 2 it is of that one; with 1 it may be, read wrong."""
        own, its = self.tuple, seen.tuple
        ports = (its.sport, its.dport) == (own.sport, own.dport)
        addresses = (its.saddr, its.daddr) == (own.saddr, own.daddr)
        some = its.sport == own.sport or its.dport == own.dport or (addresses and own.family == "inet")
        return max(2 * (seen.inode == self._inode), ports + (ports and addresses), int(some))

    def is_of(self, seen: event.Event) -> bool:
        """Whether an event is of our sending socket, one of its fields perhaps being read wrong."""
        return self.likeness(seen) > 1

    def take(self, seen: event.Event, uncounted: int) -> None:
        """Notes an event, and what the kernel says of the socket at the same moment. uncounted: retransmits that an
        event comes too early to be counted in.

        On a slow host the next retransmit may come before we ask. Then the number of this one must be between the
        former's and the kernel's.
        """
        info = self.info()
        in_loss = info.ca_state == uapi.TCP_CA_Loss
        info = info._replace(total_retrans=info.total_retrans - uncounted)
        former = self.events[-1].total_retrans if self.events else -uncounted
        if former < seen.total_retrans < info.total_retrans:
            info = Info(None, None, None, seen.total_retrans)
        self.infos.append(info)
        self.events.append(seen)
        if in_loss and not self._ending:
            self._ending = True
            self.sender.shutdown(socket.SHUT_WR)

    def complete(self) -> bool:
        """Enough was seen: two timeouts, the later behind the shutdown and held against the kernel's own word on the
        same moment. Of an MPTCP socket one retransmit is enough: it is there for its own fields alone."""
        if self.family == MPTCP:
            return any(info.rtt is not None for info in self.infos)
        timeouts = [(e, info) for e, info in zip(self.events, self.infos) if e.kind == "rto"]
        return any(e.state == "FIN_WAIT1" and info.rtt is not None for e, info in timeouts[1:])

    def info(self) -> Info:
        """Raises OSError where MPTCP does not say."""
        content = self.sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        ca_state, retransmits, rtt, snd_cwnd, total = struct.unpack("=xBB65xI8xI16xI", content)
        return Info(retransmits, rtt, snd_cwnd, total, ca_state)

    def inode(self) -> int:
        return self._inode

    def other_tuples(self) -> List[SocketTuple]:
        """What the accepted end and the listener are called; the latter has no remote end."""
        t = self.tuple
        accepted = t._replace(sport=t.dport, dport=t.sport, saddr=t.daddr, daddr=t.saddr, ifindex=0)
        nobody = "::" if t.family == "inet6" else "0.0.0.0"
        return [accepted, accepted._replace(dport=0, daddr=nobody)]

    def close(self) -> None:
        """Ends both ends at once: with a zero linger time a close is a reset."""
        for opened in self._sockets:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            opened.close()


def domain_v6(family: str) -> bool:
    return family in ("inet6", "mapped")


def _set(of: socket.socket, level: int, option: int, value: Union[int, bytes]) -> bool:
    """Sets an option of a socket, if the kernel lets us."""
    try:
        of.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def drop_everything(receiver: socket.socket) -> None:
    """Attaches a classic BPF filter of one instruction, `ret #0`."""
    code = bytearray(struct.pack("=HBBI", uapi.BPF_RET_K, 0, 0, 0))
    program = struct.pack("@HP", 1, syscall.address(code))  # struct sock_fprog
    receiver.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, program)
