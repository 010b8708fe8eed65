"""The reader of BPF_MAP_TYPE_PERF_EVENT_ARRAY, where there is no ring buffer to use (man 2 perf_event_open, mmap).

Each CPU writes to a ring of its own. Between them the records are put in order by the time they carry, in rounds: a
round reads all rings, and what it read is given out by the next one that comes at least ROUND seconds later. So records
are in order unless one took longer than that from its time stamp to the ring; the program that does both runs on one
CPU without a break but for interrupts. A CPU that comes online later has no ring: what it raises is counted as lost.
"""

from __future__ import annotations

import bisect
import mmap
import os
import select
import struct
import time
from typing import List, Tuple

from sockpid import uapi

from . import perf
from .map import Map, cpus
from .ringbuf import ULONG_MAX, Barrier

ROUND = 0.02
RING_SIZE = 1 << 17

# struct perf_event_mmap_page
DATA_HEAD = 1024
DATA_TAIL = 1032


class _Ring:
    """One CPU's ring: descriptor, control page and data."""

    def __init__(self, cpu: int) -> None:
        self.fd = perf.open_bpf_output(cpu)
        page = mmap.PAGESIZE
        self._size = max(RING_SIZE, page)
        try:
            self._pages = mmap.mmap(self.fd, page + self._size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except BaseException:
            os.close(self.fd)
            raise
        view = memoryview(self._pages)
        self._head = view[DATA_HEAD : DATA_HEAD + 8].cast("Q")
        self._tail = view[DATA_TAIL : DATA_TAIL + 8].cast("Q")
        self._data = view[page:]
        view.release()
        self._barrier = Barrier()

    def read(self) -> Tuple[List[bytes], int]:
        """The bodies of the samples that are there, and how many the kernel says it lost."""
        records: List[bytes] = []
        lost = 0
        tail, head = self._tail[0], self._head[0]
        self._barrier.cross()
        while tail != head:
            kind, _, size = struct.unpack("=IHH", self._take(tail, 8))
            body = self._take(tail + 8, size - 8)
            if kind == uapi.PERF_RECORD_SAMPLE:
                records.append(body[4 : 4 + struct.unpack_from("=I", body)[0]])
            elif kind == uapi.PERF_RECORD_LOST:  # id, lost
                lost += struct.unpack_from("=QQ", body)[1]
            tail = (tail + size) & ULONG_MAX
        self._barrier.cross()
        self._tail[0] = tail
        return records, lost

    def _take(self, position: int, size: int) -> bytes:
        start = position % self._size
        part = bytes(self._data[start : start + size])
        return part + bytes(self._data[: size - len(part)])

    def close(self) -> None:
        for view in (self._head, self._tail, self._data):
            view.release()
        self._pages.close()
        os.close(self.fd)


class PerfBuffer:
    """Reads the records of a perf event array, as RingBuffer reads those of a ring buffer.

    Records begin with their time (u64, nanoseconds); record_size is their size in bytes, which the kernel pads. The map
    stays the caller's; close() takes the rings away.
    """

    def __init__(self, array: Map, record_size: int) -> None:
        self._record_size = record_size
        self._epoll = select.epoll()
        self._rings: List[_Ring] = []
        self._lost = 0
        self._held: List[bytes] = []
        self._bound = 0
        self._due = 0.0
        try:
            for cpu in cpus("online"):
                ring = _Ring(cpu)
                self._rings.append(ring)
                array.update(struct.pack("=I", cpu), struct.pack("=I", ring.fd))
                self._epoll.register(ring.fd, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there may be new records. Some may be held back for a moment besides."""
        return self._epoll.fileno()

    def wake_by(self, fd: int) -> None:
        """wait() ends, too, when this descriptor is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds for records; True if there may be some. Signals end the wait."""
        if self._held:
            time.sleep(max(0.0, min(timeout, self._due - time.monotonic())))
            return True
        return bool(self._epoll.poll(timeout))

    def drain(self, last: bool = False) -> List[bytes]:
        """Takes the records that are due, oldest first; never waits. last: all of them, for no more will come."""
        now = time.monotonic()
        for ring in self._rings:
            records, lost = ring.read()
            self._held += (record[: self._record_size] for record in records)
            self._lost += lost
        if not last and now < self._due:
            return []
        self._held.sort(key=_time)
        due = len(self._held) if last else bisect.bisect_right([_time(record) for record in self._held], self._bound)
        if self._held:
            self._bound = max(self._bound, _time(self._held[-1]))
        self._due = time.monotonic() + ROUND  # reading may have taken long itself
        given, self._held = self._held[:due], self._held[due:]
        return given

    def lost(self) -> int:
        """Records that found no room, as far as the kernel has told: it does so with the next record that fits."""
        return self._lost

    def close(self) -> None:
        self._epoll.close()
        for ring in self._rings:
            ring.close()
        self._rings.clear()


def _time(record: bytes) -> int:
    (stamp,) = struct.unpack_from("=Q", record)
    return int(stamp)
