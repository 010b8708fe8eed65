"""BPF programs and links of the whole system, and what of a process is attached: the kernel's own word.

Runs in a guest beside whatever tool is measured, with sockpid's seam to the kernel and no more.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Dict, Iterator, NamedTuple, Set

from sockpid import syscall
from sockpid.errors import SyscallError

# enum bpf_cmd (include/uapi/linux/bpf.h)
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 11, 13, 15
TASK_FD_QUERY, LINK_GET_NEXT_ID = 20, 31
# byte offsets in struct bpf_prog_info
JITED_LEN, XLATED_LEN, NAME, RUN_TIME_NS, RUN_CNT, INFO_SIZE = 16, 20, 64, 192, 200, 208


class Run(NamedTuple):
    """A program's name, bytes of its instructions (as the kernel runs them, and compiled; 0: not compiled), and its
    calls while statistics were on."""

    name: str
    xlated: int
    jited: int
    ns: int
    calls: int


def ids(command: int) -> Iterator[int]:
    """The ids of all programs (PROG_GET_NEXT_ID) or links (LINK_GET_NEXT_ID)."""
    attr = bytearray(8)
    while True:
        try:
            syscall.bpf("GET_NEXT_ID", command, attr)
        except SyscallError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        (found,) = struct.unpack_from("=I", attr, 4)
        yield found
        struct.pack_into("=I", attr, 0, found)


def programs() -> Dict[int, Run]:
    """Every program by its id."""
    found: Dict[int, Run] = {}
    for number in ids(PROG_GET_NEXT_ID):
        fd = syscall.bpf("BPF_PROG_GET_FD_BY_ID", PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", number, 0, 0)))
        try:
            info = bytearray(INFO_SIZE)
            attr = struct.pack("=IIQ", fd, len(info), syscall.address(info))
            syscall.bpf("BPF_OBJ_GET_INFO_BY_FD", OBJ_GET_INFO_BY_FD, bytearray(attr))
        finally:
            os.close(fd)
        jited, xlated = struct.unpack_from("=II", info, JITED_LEN)
        name = bytes(info[NAME : NAME + 16]).split(b"\0", 1)[0].decode()
        found[number] = Run(name, xlated, jited, *struct.unpack_from("=QQ", info, RUN_TIME_NS))
    return found


class Attachments:
    """What has been attached since this was made: links of anybody, and perf events of one process that run programs.

    With `perf` events count that run none, for a tool that is no BPF program.
    """

    def __init__(self, perf: bool) -> None:
        self._perf = perf
        self._before = set(ids(LINK_GET_NEXT_ID))
        self._events: Set[int] = set()

    def count(self, pid: int) -> int:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                fd = int(name)
                if fd not in self._events and self._is_event(pid, fd):
                    self._events.add(fd)
        except OSError:  # it has just ended
            pass
        return len(self._events) + len(set(ids(LINK_GET_NEXT_ID)) - self._before)

    def _is_event(self, pid: int, fd: int) -> bool:
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") != "anon_inode:[perf_event]":
                return False
        except OSError:
            return False
        if self._perf:
            return True
        attr = bytearray(struct.pack("=IIIIQIIQQ", pid, fd, 0, 0, 0, 0, 0, 0, 0))
        try:
            syscall.bpf("BPF_TASK_FD_QUERY", TASK_FD_QUERY, attr)
        except SyscallError:  # a perf event without a program
            return False
        return True
