"""Processes and namespaces as the scenarios need them, by fork and a few system calls that Python has no name for."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import select
import socket
import struct
from typing import Callable, NamedTuple, Tuple

CLONE_NEWNET = 0x40000000
CLONE_NEWPID = 0x20000000
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438  # the same on all architectures

_libc = ctypes.CDLL(None, use_errno=True)


class Process(NamedTuple):
    """A process as /proc has it. With start_ticks (since boot) its pid names it for ever."""

    pid: int
    comm: str
    start_ticks: int


def me() -> Process:
    """This process, as the pid namespace of /proc numbers it: our own may be a nested one."""
    return process(int(os.readlink("/proc/self")))


def process(pid: int) -> Process:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        front, _, rest = file.read().rpartition(")")
    return Process(pid, front.partition("(")[2], int(rest.split()[19]))


def tid() -> int:
    """The id of the calling thread."""
    return int(os.path.basename(os.readlink("/proc/thread-self")))


def rename(comm: str) -> None:
    """Gives the calling thread a name, which is the process's if it is the first thread."""
    with open(f"/proc/self/task/{tid()}/comm", "w", encoding="utf-8") as file:
        file.write(comm)


def fork(body: Callable[[], None]) -> int:
    """Runs body in a child, which ends with it. Returns the child's pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        body()
        status = 0
    except BaseException:  # whatever it is, it must not run on as a second parent
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def syscall(name: str, number: int, *arguments: int) -> int:
    """A system call by number. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def splice(source: int, target: int, length: int) -> None:
    if _libc.splice(source, None, target, None, ctypes.c_size_t(length), 0) != length:
        raise OSError(ctypes.get_errno(), f"splice: {os.strerror(ctypes.get_errno())}")


def own_network() -> None:
    """Moves the process to a network namespace of its own, which ends with the last process in it."""
    unshare(CLONE_NEWNET)
    _configure_loopback(SIOCSIFFLAGS, struct.pack("H", IFF_UP))


def _configure_loopback(request: int, value: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s24s", b"lo", value))  # struct ifreq


def lose_addresses() -> None:
    """Takes the IPv4 address from the loopback device, and with it all routes, in our network namespace."""
    _configure_loopback(SIOCSIFADDR, struct.pack("H", socket.AF_INET))


def steal(pid: int, descriptor: int) -> int:
    """A descriptor of another process, duplicated into this one (pidfd_getfd, Linux 5.6)."""
    pidfd = syscall("pidfd_open", SYS_PIDFD_OPEN, pid, 0)
    try:
        return syscall("pidfd_getfd", SYS_PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)


def send_descriptors(channel: socket.socket, descriptors: Tuple[int, ...]) -> None:
    """SCM_RIGHTS; socket.send_fds() is younger than Python 3.7."""
    channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def receive_descriptors(channel: socket.socket, count: int) -> Tuple[int, ...]:
    received = array.array("i")
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(count * received.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data)
    return tuple(received)


class Gate:
    """One process waits until another opens."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self, times: int = 1) -> None:
        os.write(self._write, b"x" * times)

    def wait(self) -> None:
        os.read(self._read, 1)

    def opened(self) -> bool:
        """Is somebody's opening there to be waited for?"""
        return bool(select.select([self._read], [], [], 0)[0])
