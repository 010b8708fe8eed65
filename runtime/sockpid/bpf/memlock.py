"""Makes maps and programs where their memory counts against RLIMIT_MEMLOCK, and says what EPERM means there.

Before Linux 5.11 it is how the kernel says that the limit is reached, for a program as for a map.
Linux kernel commit 80ee81e0403c ("bpf: Eliminate rlimit-based memory accounting infra for bpf maps") (in v5.11)
"""

from __future__ import annotations

import errno
import os
import struct

from sockpid import syscall, uapi
from sockpid.errors import SyscallError
from sockpid.host import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple


def bpf(name: str, cmd: int, attr: bytearray) -> int:
    """bpf(2) for what takes memory; where the limit is reached it is raised, for good.

    Raises CapabilityError or SyscallError that tells what explains EPERM, and SyscallError for any other refusal.
    """
    try:
        return syscall.bpf(name, cmd, attr)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        missing = kernel.missing_capability(error.name)
        if missing is not None:
            raise missing from None
        if not _raise_limit(error):
            raise
    return syscall.bpf(name, cmd, attr)


def _raise_limit(refusal: SyscallError) -> bool:
    """False if the limit is none. Raises SyscallError where it may not be raised."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if before[0] == resource.RLIM_INFINITY:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError) as error:
        if not _is_counted(before):
            return False
        raise SyscallError(
            refusal.name,
            errno.EPERM,
            f"RLIMIT_MEMLOCK may be too small, and raising it was refused ({error}); try `ulimit -l unlimited`",
        ) from None
    return True


def _is_counted(limits: Tuple[int, int]) -> bool:
    """Does a map count against the limit? Not where one can be made while that is 0."""
    import resource

    attr = bytearray(struct.pack("=IIIII", uapi.BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, limits[1]))
    try:
        os.close(syscall.bpf("BPF_MAP_CREATE", uapi.BPF_MAP_CREATE, attr))
    except SyscallError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
    return False
