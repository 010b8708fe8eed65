"""The reader of BPF_MAP_TYPE_RINGBUF (Linux: Documentation/bpf/ringbuf.rst).

One consumer page that we write, one producer page, and the data. The kernel would map all of these, twice in a row, so
that no record is split; but whatever is mapped counts as memory of ours. So there is a window that moves along, and a
record that goes on in the next one is put together.
"""

from __future__ import annotations

import mmap
import select
import struct
from _thread import allocate_lock

from sockpid import uapi

from .map import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Tuple

LONG = struct.calcsize("L")
ULONG_MAX = (1 << 8 * LONG) - 1
"""Positions in the kernel's rings are unsigned longs, and wrap: on 32 bits after four gigabytes."""

WINDOW = 1 << 17
"""Bytes, a multiple of every size that pages have. To move it takes as long as to read ten records."""


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
        self._fd, self._mask = ring.fd, ring.spec.max_entries - 1
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # On 32 bits newer kernels have another position, pending_pos, right behind the producer's.
        self._position = memoryview(self._consumer)[:LONG].cast("L")
        self._produced = memoryview(self._producer)[:LONG].cast("L")
        self._window = min(WINDOW, ring.spec.max_entries)
        self._open_window(0)
        self._barrier = Barrier().cross
        self._epoll = select.epoll()
        self._epoll.register(ring.fd, select.EPOLLIN)

    def _open_window(self, base: int) -> None:
        """base: of the data, what comes first in the window."""
        self._base = base
        self._mapped = mmap.mmap(
            self._fd, self._window, mmap.MAP_SHARED, mmap.PROT_READ, offset=2 * mmap.PAGESIZE + base
        )
        self._data = memoryview(self._mapped)
        self._headers = self._data.cast("I")  # each record begins with one, at a multiple of eight

    def _close_window(self) -> None:
        self._headers.release()
        self._data.release()
        self._mapped.close()

    def _find(self, position: int) -> int:
        """Where a position lies in the window, which is moved there."""
        place = position & self._mask
        start = place & (self._window - 1)
        if place - start != self._base:
            self._close_window()
            self._open_window(place - start)
        return start

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
        before, position = -1, self._position[0]
        produced = self._produced[0]
        self._barrier()
        records: List[bytes] = []
        while position not in (before, produced):
            before = position
            found, position = self._of_window(position, produced)
            records += found
        self._barrier()
        self._position[0] = position
        return records

    def _of_window(self, position: int, produced: int) -> Tuple[List[bytes], int]:
        """The records from `position` on that begin in one window, as far as they are complete; the position behind."""
        start, window, length = self._find(position), self._window, 0
        headers = self._headers
        spans: List[Tuple[int, int]] = []
        while position != produced and start < window:
            header = headers[start >> 2]
            if header & uapi.BPF_RINGBUF_BUSY_BIT:
                break
            length = header & ~uapi.BPF_RINGBUF_DISCARD_BIT
            first = start + uapi.BPF_RINGBUF_HDR_SZ
            if length == header:
                spans.append((first, first + length))
            taken = length + uapi.BPF_RINGBUF_HDR_SZ + 7 & ~7
            start += taken
            position = (position + taken) & ULONG_MAX
        self._barrier()  # one for all of them: no header is read behind it, no record before
        data = self._data
        records = [bytes(data[first:end]) for first, end in spans]
        if spans and spans[-1][1] > window:
            records[-1] = self._whole(records[-1], position, length)
        return records, position

    def _whole(self, begun: bytes, behind: int, length: int) -> bytes:
        """A record of which only the beginning lies in the window. behind: the position behind it."""
        first = behind - (length + 7 & ~7)
        while len(begun) < length:
            start = self._find(first + len(begun))
            begun += bytes(self._data[start : start + length - len(begun)])
        return begun

    def lost(self) -> int:
        """Records that found no room: here the program itself counts them."""
        return 0

    def close(self) -> None:
        self._epoll.close()
        self._close_window()
        for view in (self._position, self._produced):
            view.release()
        self._consumer.close()
        self._producer.close()
