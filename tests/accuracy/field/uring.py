"""io_uring by raw system calls: as much of it as sends one buffer at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import NamedTuple

from .processes import syscall

SYS_IO_URING_SETUP, SYS_IO_URING_ENTER = 425, 426  # the same on all architectures
IORING_SETUP_SQPOLL = 2
IORING_FEAT_SINGLE_MMAP = 1
IORING_OFF_SQES = 0x10000000
IORING_ENTER_GETEVENTS, IORING_ENTER_SQ_WAKEUP = 1, 2
IORING_OP_SEND = 26
IOSQE_ASYNC = 16
PARAMS_SIZE, SQE_SIZE, CQE_SIZE = 120, 64, 16
ENTRIES = 4


class Offsets(NamedTuple):
    """struct io_sqring_offsets and io_cqring_offsets, as far as used here."""

    sq_tail: int
    sq_mask: int
    sq_array: int
    cq_head: int
    cq_tail: int
    cq_mask: int
    cqes: int


class Ring:
    """A ring whose requests are never run by the calling thread: by a worker, or with `poll` by the polling thread."""

    def __init__(self, poll: bool = False) -> None:
        """Raises OSError where the kernel has no io_uring or does not want it used."""
        params = ctypes.create_string_buffer(PARAMS_SIZE)
        struct.pack_into("=8xIxxxxI", params, 0, IORING_SETUP_SQPOLL if poll else 0, 1000)
        self._poll = poll
        self._fd = syscall("io_uring_setup", SYS_IO_URING_SETUP, ENTRIES, ctypes.addressof(params))
        try:
            sq_entries, cq_entries = struct.unpack_from("=II", params)
            if not struct.unpack_from("=I", params, 20)[0] & IORING_FEAT_SINGLE_MMAP:
                raise OSError("io_uring: older than Linux 5.4")
            sq, cq = struct.unpack_from("=7I", params, 40), struct.unpack_from("=6I", params, 80)
            self._at = Offsets(sq[1], sq[2], sq[6], cq[0], cq[1], cq[2], cq[5])
            size = max(self._at.sq_array + 4 * sq_entries, self._at.cqes + CQE_SIZE * cq_entries)
            self._ring = mmap.mmap(self._fd, size)
            self._sqes = mmap.mmap(self._fd, SQE_SIZE * sq_entries, offset=IORING_OFF_SQES)
        except BaseException:
            os.close(self._fd)
            raise

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("=I", self._ring, offset)[0])

    def _set(self, offset: int, value: int) -> None:
        struct.pack_into("=I", self._ring, offset, value & 0xFFFFFFFF)

    def send(self, descriptor: int, data: bytes) -> None:
        """Sends and waits for the completion. Raises OSError."""
        buffer = ctypes.create_string_buffer(data, len(data))
        tail = self._get(self._at.sq_tail)
        index = tail & self._get(self._at.sq_mask)
        request = struct.pack(
            "=BBHiQQII",
            IORING_OP_SEND,
            0 if self._poll else IOSQE_ASYNC,
            0,
            descriptor,
            0,
            ctypes.addressof(buffer),
            len(data),
            0,
        )
        self._sqes[index * SQE_SIZE : (index + 1) * SQE_SIZE] = request.ljust(SQE_SIZE, b"\0")
        self._set(self._at.sq_array + 4 * index, index)
        self._set(self._at.sq_tail, tail + 1)
        flags = IORING_ENTER_GETEVENTS | (IORING_ENTER_SQ_WAKEUP if self._poll else 0)
        syscall("io_uring_enter", SYS_IO_URING_ENTER, self._fd, 1, 1, flags, 0, 0)
        head = self._get(self._at.cq_head)
        if head == self._get(self._at.cq_tail):
            raise OSError("io_uring: no completion")
        at = self._at.cqes + CQE_SIZE * (head & self._get(self._at.cq_mask))
        result = int(struct.unpack_from("=i", self._ring, at + 8)[0])
        self._set(self._at.cq_head, head + 1)
        if result < 0:
            raise OSError(-result, f"io_uring send: {os.strerror(-result)}")

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring.close()
        self._sqes.close()
        os.close(self._fd)
