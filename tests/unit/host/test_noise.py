"""Random bytes never keep anybody waiting."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from sockpid.host import noise
from tests.imports import PACKAGES

WAITING = {"urandom", "SystemRandom", "secrets", "uuid1", "uuid4"}
"""Names of what waits until the kernel has random numbers."""


def not_yet(_count: int, flags: int) -> bytes:
    assert flags & os.GRND_NONBLOCK
    raise BlockingIOError


@pytest.mark.parametrize("device", [noise.URANDOM, "/nowhere", os.devnull])
def test_a_kernel_that_has_no_random_numbers_yet(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getrandom", not_yet)
    monkeypatch.setattr(noise, "URANDOM", device)
    for count in (1, 4, 100):
        one, other = noise.random_bytes(count), noise.random_bytes(count)
        assert len(one) == len(other) == count
    assert one != other


def test_a_kernel_without_that_call_and_a_python_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getrandom")
    assert len(noise.random_bytes(4)) == 4


@pytest.mark.parametrize("path", sorted(PACKAGES["sockpid"].rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_waits_for_random_numbers(path: Path) -> None:
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Attribute, ast.Name))
    }
    assert not used & WAITING
