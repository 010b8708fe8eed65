"""Addresses in network order as text, and back: inet_ntop(3) and inet_pton(3) of what the kernel and we write.

ipaddress would do it, in a quarter of a megabyte; socket has both, but what is pure has no business there.
"""

from __future__ import annotations

import struct

INET6 = 10
"""AF_INET6 of Linux; any other family is IPv4's."""


def ntop(family: int, raw: bytes) -> str:
    """Dotted for IPv4, of which the first four bytes are looked at; RFC 5952 for IPv6, without dots in it."""
    if family != INET6:
        return f"{raw[0]}.{raw[1]}.{raw[2]}.{raw[3]}"
    words = [f"{word:x}" for word in struct.unpack("!8H", raw)]
    # The longest row of zeros is left out, of two or more; of equals the first.
    for length in range(words.count("0"), 1, -1):
        for start in range(9 - length):
            if words[start : start + length] == ["0"] * length:
                return f"{':'.join(words[:start])}::{':'.join(words[start + length :])}"
    return ":".join(words)


def pton(family: int, text: str) -> bytes:
    """The 16 bytes that hold an address of ntop(); an IPv4 address is the first four. Raises ValueError for others."""
    if family != INET6:
        numbers = [int(number) for number in text.split(".")]
        if len(numbers) != 4:
            raise ValueError(f"{text!r} is no IPv4 address")
        return bytes(numbers).ljust(16, b"\0")
    head, gap, tail = (part.split(":") if part else [] for part in text.partition("::"))
    if gap:
        head += ["0"] * (8 - len(head) - len(tail))
    try:
        return struct.pack("!8H", *(int(word, 16) for word in head + tail))
    except struct.error:
        raise ValueError(f"{text!r} is no IPv6 address") from None
