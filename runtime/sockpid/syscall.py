"""The one seam to the kernel: every system call that Python has no function for goes through `syscall`.

Tests replace `syscall` (a function of a name and integers) to run maps, programs and links without a kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import arch
from .errors import SyscallError, UnsupportedArchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# Numbers that are the same on all architectures, as all are since Linux 5.1.
PIDFD_OPEN = 434
PIDFD_GETFD = 438

_machine: Optional[arch.Arch] = None
_libc: Optional[ctypes.CDLL] = None


def machine() -> arch.Arch:
    """The architecture this process runs on. Raises UnsupportedArchError, also for a 32-bit Python on 64 bits."""
    global _machine  # noqa: PLW0603 - found once
    if _machine is None:
        found = arch.of_machine(os.uname().machine)
        if struct.calcsize("P") != found.pointer_size:
            raise UnsupportedArchError(
                f"a {struct.calcsize('P') * 8}-bit Python on a {found.pointer_size * 8}-bit {found.name} kernel: "
                f"the system calls differ; run a {found.pointer_size * 8}-bit Python"
            )
        _machine = found
    return _machine


def syscall(name: str, number: int, *args: int) -> int:
    """Calls the kernel; `name` is for the error. Raises SyscallError with the kernel's errno."""
    global _libc  # noqa: PLW0603 - opened once
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.syscall.restype = ctypes.c_long
    result: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args))
    if result < 0:
        raise SyscallError(name, ctypes.get_errno())
    return result


def address(buffer: bytearray) -> int:
    """The address of a buffer, valid while the caller keeps it and does not resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer else 0


def bpf(name: str, cmd: int, attr: bytearray) -> int:
    """bpf(2). `attr` is the packed union bpf_attr up to the last field in use; the kernel may write into it."""
    return syscall(f"bpf({name})", machine().bpf, cmd, address(attr), len(attr))


def perf_event_open(attr: bytearray, pid: int, cpu: int, flags: int) -> int:
    """perf_event_open(2) without a group. `attr` is a packed struct perf_event_attr."""
    return syscall("perf_event_open", machine().perf_event_open, address(attr), pid, cpu, -1, flags)


def setns(fd: int, nstype: int) -> None:
    """setns(2): moves the calling thread, and no other, into the namespace that `fd` refers to."""
    syscall("setns", machine().setns, fd, nstype)


def prctl(name: str, option: int, argument: int) -> None:
    """prctl(2) with one argument; `name` is the option's, for the error."""
    syscall(f"prctl({name})", machine().prctl, option, argument, 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2): gives the calling thread namespaces of its own."""
    syscall("unshare", machine().unshare, flags)


def kcmp(pid1: int, pid2: int, kind: int) -> int:
    """kcmp(2): 0 where two threads share what `kind` names (KCMP_FILES: their table of descriptors)."""
    return syscall("kcmp", machine().kcmp, pid1, pid2, kind, 0, 0)


def splice(fd_in: int, fd_out: int, length: int) -> int:
    """splice(2) without offsets: moves up to `length` bytes, one of the two being a pipe."""
    return syscall("splice", machine().splice, fd_in, 0, fd_out, 0, length, 0)


FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
"""The same on all architectures (arch/*/kernel/syscalls)."""
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_CMD_CREATE = 6


def detached_mount(fstype: str) -> int:
    """A file system mounted nowhere, as a descriptor of its root. Raises SyscallError.

    Linux kernel commit 93766fbd2696 ("vfs: syscall: Add fsmount() to create a mount for a superblock") (in v5.2)
    """
    name = bytearray(fstype.encode() + b"\0")
    context = syscall("fsopen", FSOPEN, address(name), FSOPEN_CLOEXEC)
    try:
        syscall("fsconfig", FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0)
        return syscall("fsmount", FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def pidfd_getfd(pid: int, fd: int) -> int:
    """A duplicate of a descriptor of another process, for us alone: pidfd_open(2), pidfd_getfd(2).

    Linux kernel commit 8649c322f75c ("pid: Implement pidfd_getfd syscall") (in v5.6)
    """
    pidfd = syscall("pidfd_open", PIDFD_OPEN, pid, 0)
    try:
        return syscall("pidfd_getfd", PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
