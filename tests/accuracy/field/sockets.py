"""Sockets on loopback whose tuples nobody else uses, and peers that do not answer."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Optional, Tuple

from . import filters

Address = Tuple[str, int]
FAMILIES = ("inet", "inet6", "mapped")


def host(family: str) -> str:
    """An address of this machine that hardly anybody else uses: 127.0.0.0/8 has plenty, IPv6 has ::1 alone."""
    if family == "inet6":
        return "::1"
    a, b, c = os.urandom(3)
    text = f"127.{a | 1}.{b}.{c % 253 + 1}"
    return f"::ffff:{text}" if family == "mapped" else text


def tcp(family: str = "inet", protocol: int = 0) -> socket.socket:
    """A TCP socket that neither waits to fill a segment nor minds an address that was in use."""
    opened = socket.socket(socket.AF_INET if family == "inet" else socket.AF_INET6, socket.SOCK_STREAM, protocol)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == "mapped":
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return opened


def bound(family: str = "inet", address: Optional[Address] = None) -> socket.socket:
    """A socket with a local address of its own, to listen with."""
    opened = tcp(family)
    opened.bind(address or (host(family), 0))
    return opened


def listener(
    family: str = "inet", deaf: Optional[filters.Filter] = None, address: Optional[Address] = None
) -> socket.socket:
    """A listening socket; with `deaf`, what it or its accepted sockets do not hear (default: data)."""
    opened = bound(family, address)
    filters.drop(opened, filters.DATA if deaf is None else deaf)
    opened.listen(4096)
    return opened


def hearing_listener(family: str = "inet") -> socket.socket:
    """A listening socket without a filter."""
    opened = bound(family)
    opened.listen(4096)
    return opened


def connect(
    peer: Address,
    family: str = "inet",
    *,
    deaf: Optional[filters.Filter] = None,
    local: Optional[Address] = None,
    protocol: int = 0,
) -> socket.socket:
    """A socket connected to `peer`; `deaf` is what it does not hear."""
    opened = tcp(family, protocol)
    if deaf is not None:
        filters.drop(opened, deaf)
    opened.bind(local or (host(family), 0))
    opened.connect(peer[:2])
    return opened


def begin_connect(peer: Address, family: str = "inet", deaf: Optional[filters.Filter] = None) -> socket.socket:
    """A socket that has sent its SYN and does not wait for the answer."""
    opened = tcp(family)
    if deaf is not None:
        filters.drop(opened, deaf)
    opened.bind((host(family), 0))
    opened.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        opened.connect(peer[:2])
    return opened


def send_two(sender: socket.socket) -> None:
    """Two segments: with one, the tail loss probe waits for a delayed acknowledgement."""
    for _ in range(2):
        sender.send(b"x")


def reset(opened: socket.socket) -> None:
    """Closes with an RST: neither end lingers."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


def retransmitted(opened: socket.socket) -> Optional[int]:
    """The kernel's count of this socket's retransmits (tcp_info.tcpi_total_retrans, at byte 100)."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, 100)[0]) if len(info) >= 104 else None
