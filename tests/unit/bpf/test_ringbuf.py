"""The reader of a ring buffer, on pages that a file lends."""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sockpid import uapi
from sockpid.bpf import ringbuf
from sockpid.bpf.ringbuf import RingBuffer

PAGE = mmap.PAGESIZE
SIZE = 4 * PAGE


class Ring:
    """A ring buffer map as the kernel fills it: consumer page, producer page, data."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + SIZE)
        self.spec = SimpleNamespace(max_entries=SIZE)
        self.pages = mmap.mmap(self.fd, 2 * PAGE + SIZE)
        self.produced = 0

    @property
    def consumed(self) -> int:
        return int(struct.unpack_from("L", self.pages)[0])

    def put(self, record: bytes, flags: int = 0) -> None:
        raw = struct.pack("=II", len(record) | flags, 0) + record
        for index, byte in enumerate(raw + bytes(-len(raw) % 8)):
            self.pages[2 * PAGE + (self.produced + index) % SIZE] = byte
        self.produced += (len(raw) + 7) & ~7
        struct.pack_into("L", self.pages, PAGE, self.produced)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    monkeypatch.setattr(select, "epoll", lambda: SimpleNamespace(register=lambda *_: None, close=lambda: None))
    made = Ring()
    yield made
    made.pages.close()
    os.close(made.fd)


@pytest.fixture(params=[PAGE, 4 * PAGE])
def reader(ring: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RingBuffer]:
    monkeypatch.setattr(ringbuf, "WINDOW", request.param)
    made = RingBuffer(ring)
    yield made
    made.close()


@pytest.mark.parametrize(("length", "count"), [(240, 1), (240, 60), (8, 7), (13, 100), (1000, 2), (5000, 3), (0, 5)])
def test_records_come_whole_wherever_they_begin(ring: Ring, reader: RingBuffer, length: int, count: int) -> None:
    while ring.produced < 3 * SIZE:
        put = [os.urandom(length) for _ in range(count)]
        for record in put:
            ring.put(record)
        assert reader.drain() == put
        assert ring.consumed == ring.produced


def test_what_is_discarded_is_passed_over_and_what_is_written_waited_for(ring: Ring, reader: RingBuffer) -> None:
    ring.put(b"a" * 16)
    ring.put(b"b" * 16, uapi.BPF_RINGBUF_DISCARD_BIT)
    ring.put(b"c" * 16)
    ring.put(b"d" * 16, uapi.BPF_RINGBUF_BUSY_BIT)
    ring.put(b"e" * 16)
    assert reader.drain() == [b"a" * 16, b"c" * 16]
    assert reader.drain() == []
