"""Addresses are those of the standard library."""

from __future__ import annotations

import ipaddress
import itertools
import random

import pytest

from sockpid import inet

INET = 2


def test_ipv6_as_text_and_back() -> None:
    """Every pattern of zeros, and numbers of every length."""
    for pattern in itertools.product((False, True), repeat=8):
        words = [random.choice((1, 0xAB, 0xFFFF)) if there else 0 for there in pattern]
        raw = b"".join(word.to_bytes(2, "big") for word in words)
        if raw[:12] == bytes(10) + b"\xff\xff":
            continue  # the kernel has none; versions of Python differ
        text = str(ipaddress.IPv6Address(raw))
        assert inet.ntop(inet.INET6, raw) == text
        assert inet.pton(inet.INET6, text) == raw


def test_ipv4_as_text_and_back() -> None:
    raw = bytes((10, 0, 255, 1))
    for given in (raw, raw.ljust(16, b"\0")):
        assert inet.ntop(INET, given) == "10.0.255.1"
    assert inet.pton(INET, "10.0.255.1") == raw.ljust(16, b"\0")


@pytest.mark.parametrize(
    ("family", "text"),
    [(INET, "1.2.3"), (INET, "1.2.3.256"), (INET, "::1"), (INET, ""), (10, "1:2"), (10, "1.2.3.4"), (10, "10000::"),
     (10, "1:2:3:4:5:6:7:8:9"), (10, "g::"), (10, "::-1")],
)  # fmt: skip
def test_what_is_no_address(family: int, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        inet.pton(family, text)
