"""How soon it is known that a map has lost owners for want of room, and what it costs to know."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid.host import kernel
from sockpid.probe.eviction import COUNTER_INSERTED, QUICK_SECONDS, Room

ENTRIES = 1024


class Owners:
    """A map that walks slowly, of so many entries that are there."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(type="BPF_MAP_TYPE_LRU_HASH", max_entries=ENTRIES)
        self.there = self.walks = 0
        self.takes = 0.0

    def keys(self) -> list[int]:
        self.walks += 1
        time.sleep(self.takes)
        return list(range(self.there))


@pytest.fixture
def owners() -> Owners:
    return Owners()


@pytest.fixture
def room(owners: Owners) -> Room:
    others = dict.fromkeys(("socket_to_pid", "exec_names", "exited"), owners)
    collection: Any = SimpleNamespace(
        maps={"owner_by_sock": owners, **others},
        base={},
        counter=lambda number: ENTRIES - 10 if number == COUNTER_INSERTED else 0,
    )
    return Room(collection)


def test_the_public_map_is_full_before_it_evicts_for_sure(room: Room, owners: Owners) -> None:
    owners.there = ENTRIES // 4
    assert not room.is_public_full()
    owners.there = ENTRIES
    assert room.is_public_full()


def test_an_event_is_not_told_by_what_was_true_before_it(room: Room, owners: Owners) -> None:
    owners.there = ENTRIES - 10
    assert room.evicted(kernel.monotonic_ns()) == 0
    owners.there -= 3
    assert room.evicted(kernel.monotonic_ns()) == 3


def test_one_walk_serves_all_that_was_before_it(room: Room, owners: Owners) -> None:
    owners.there, owners.takes = ENTRIES - 10, QUICK_SECONDS / 2
    before = kernel.monotonic_ns()
    for _ in range(100):
        room.evicted(before)
    assert owners.walks == 1


def test_a_slow_walk_is_a_tenth_of_the_time(room: Room, owners: Owners) -> None:
    owners.there, owners.takes = ENTRIES - 10, QUICK_SECONDS * 2
    began = time.monotonic()
    while time.monotonic() - began < QUICK_SECONDS * 12:
        room.evicted(kernel.monotonic_ns())
    assert owners.walks == 1
