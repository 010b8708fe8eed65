"""The reader of BPF_MAP_TYPE_RINGBUF (Linux: Documentation/bpf/ringbuf.rst).

One consumer page that we write, one producer page, and the data. The kernel would map these twice in a row, so that no
record is split; but pages that are mapped count as ours. So they are mapped once, and a record that goes on at the
start is put together.
"""

from __future__ import annotations

import mmap
import select
import struct
from _thread import allocate_lock

from . import uapi
from .map import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Tuple

LONG = struct.calcsize("L")
ULONG_MAX = (1 << 8 * LONG) - 1
"""Positions in the kernel's rings are unsigned longs, and wrap: on 32 bits after four gigabytes."""


class Barrier:
    """Orders our loads and stores against the kernel's on weakly ordered machines.

    Two turns of a lock: the first release comes before the second acquire in the order that all CPUs see.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()

    def cross(self) -> None:
        for _ in range(2):
            with self._lock:
                pass


class RingBuffer:
    """Reads the records of a ring buffer map. The map stays the caller's; close() unmaps."""

    def __init__(self, ring: Map) -> None:
        self._size = ring.spec.max_entries
        self._mask = self._size - 1
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer = mmap.mmap(ring.fd, page + self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # On 32 bits newer kernels have another position, pending_pos, right behind the producer's.
        self._position = memoryview(self._consumer)[:LONG].cast("L")
        self._produced = memoryview(self._producer)[:LONG].cast("L")
        self._data = memoryview(self._producer)[page:]
        self._headers = self._data.cast("I")  # each record begins with one, at a multiple of eight
        self._barrier = Barrier().cross
        self._epoll = select.epoll()
        self._epoll.register(ring.fd, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when wait() would not wait."""
        return self._epoll.fileno()

    def wake_by(self, fd: int) -> None:
        """wait() ends, too, when this descriptor is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for records; True if there may be some. Signals end the wait."""
        return bool(self._epoll.poll(timeout))

    def drain(self, last: bool = False) -> List[bytes]:
        """Takes the records that are complete, oldest first; never waits. last: no more will come, no matter here."""
        position, mask, headers = self._position[0], self._mask, self._headers
        produced = self._produced[0]
        self._barrier()
        spans: List[Tuple[int, int]] = []
        while position != produced:
            start = position & mask
            header = headers[start >> 2]
            if header & uapi.BPF_RINGBUF_BUSY_BIT:
                break
            length = header & ~uapi.BPF_RINGBUF_DISCARD_BIT
            start += uapi.BPF_RINGBUF_HDR_SZ
            if length == header:
                spans.append((start, start + length))
            position = (position + (length + uapi.BPF_RINGBUF_HDR_SZ + 7 & ~7)) & ULONG_MAX
        self._barrier()  # one for all of them: no header is read behind it, no record before
        data, size = self._data, self._size
        records = [
            bytes(data[start:end]) if end <= size else bytes(data[start:]) + bytes(data[: end - size])
            for start, end in spans
        ]
        self._barrier()
        self._position[0] = position
        return records

    def lost(self) -> int:
        """Records that found no room: here the program itself counts them."""
        return 0

    def close(self) -> None:
        self._epoll.close()
        for view in (self._position, self._produced, self._headers, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()
