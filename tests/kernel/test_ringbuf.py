"""The kernel maps each window of a ring buffer."""

from __future__ import annotations

import pytest

from sockpid.bpf.map import Map
from sockpid.bpf.ringbuf import WINDOW, RingBuffer
from sockpid.image import image

pytestmark = pytest.mark.kernel


def test_every_window_can_be_mapped() -> None:
    ring = Map.create(image.Map("events", "BPF_MAP_TYPE_RINGBUF", 0, 0, 4 * WINDOW))
    try:
        reader = RingBuffer(ring)
        try:
            for position in range(8, 5 * WINDOW, WINDOW // 2):
                assert reader._find(position) == position % WINDOW
                assert bytes(reader._data) == bytes(WINDOW)
            assert reader.drain() == []
        finally:
            reader.close()
    finally:
        ring.close()
