"""Linux capabilities of this process: which `run` needs once it has attached, and how it gives up the others.

Programs and maps are open then, and a descriptor is enough to use them on most kernels: of the rights with which the
probe was loaded none is left, unless the kernel says that it wants one. It is asked, not inferred from a version.
"""

from __future__ import annotations

import errno
import os
import struct

from sockpid import syscall
from sockpid.errors import SyscallError
from sockpid.namedtuple import NamedTuple
from sockpid.uapi import CAP_BPF, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE

from . import kernel, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, FrozenSet, List

_NAMES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP "
    "CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER "
    "CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL "
    "CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON "
    "CAP_BPF CAP_CHECKPOINT_RESTORE"
)
NAMES = tuple(_NAMES.split())
"""include/uapi/linux/capability.h, in the order of their numbers."""

# include/uapi/linux/prctl.h, include/uapi/linux/capability.h
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def names(bits: int) -> List[str]:
    """Capabilities by name; one that is newer than this list by number."""
    return [NAMES[n] if n < len(NAMES) else f"CAP_{n}" for n in range(64) if bits >> n & 1]


def for_run(sharers: bool, environ: bool, summary: bool) -> FrozenSet[int]:
    """What `run` needs after it has attached, besides what its maps may need.

    sharers: it looks who has a socket open; environ: it reads the environment of processes; summary: it reads the
    counters of all network namespaces at the end. Where /proc is mounted with hidepid, it takes CAP_SYS_PTRACE to see
    the processes of others at all.
    """
    keep = set()
    if sharers or environ or summary or proc.hides_others():
        keep |= {CAP_SYS_PTRACE}
    if sharers or environ:
        keep |= {CAP_DAC_READ_SEARCH}
    if summary:
        keep |= {CAP_SYS_ADMIN}
    return frozenset(keep)


def for_maps(use: Callable[[], object]) -> FrozenSet[int]:
    """What using open maps needs on this kernel: nothing, CAP_BPF, or what came before it, CAP_SYS_ADMIN. Tried.

    `use` looks something up. Where unprivileged BPF is off, the kernel long wanted a capability for every command.
    Linux kernel commit c8644cd0efe7 ("bpf: refine kernel.unprivileged_bpf_disabled behaviour") (in v5.19)
    """
    before = kernel.capability_sets()
    try:
        for needed in (frozenset(), frozenset({CAP_BPF}), frozenset({CAP_SYS_ADMIN})):
            _capset(before._replace(effective=before.effective & _bits(needed)))
            try:
                use()
            except SyscallError as error:
                if error.errno != errno.EPERM:
                    raise
            else:
                return needed
    finally:
        _capset(before)
    return frozenset({CAP_BPF, CAP_SYS_ADMIN})


class Dropped(NamedTuple):
    """Which capabilities are left, and which are gone for good. threads: how many of our threads still have some of the
    latter, since each thread has sets of its own."""

    kept: int
    gone: int
    threads: int


def drop(keep: FrozenSet[int]) -> Dropped:
    """Gives up all capabilities but these, for good: this process and its children cannot get them back.

    Call it before other threads start.
    """
    before = kernel.capability_sets()
    kept = before.permitted & _bits(keep)
    syscall.prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    for name, arguments in [("PR_CAP_AMBIENT", (PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL))] + [
        ("PR_CAPBSET_DROP", (PR_CAPBSET_DROP, n)) for n in range(64) if before.bounding & ~kept & 1 << n
    ]:
        try:
            syscall.prctl(name, *arguments)
        except SyscallError:  # EPERM without CAP_SETPCAP: without new privileges the sets below cannot grow anyway
            continue
    _capset(kernel.CapabilitySets(kept, kept, 0, 0, 0))
    others = [int(name) for name in os.listdir("/proc/self/task")]
    still = sum(bool(kernel.capability_sets(thread).permitted & ~kept) for thread in others)
    return Dropped(kept, before.permitted & ~kept, still)


def _bits(numbers: FrozenSet[int]) -> int:
    return sum(1 << number for number in numbers)


def _capset(wanted: kernel.CapabilitySets) -> None:
    header = bytearray(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0))
    words = [bits >> shift & 0xFFFFFFFF for shift in (0, 32) for bits in wanted[:3]]
    data = bytearray(struct.pack("=6I", *words))
    syscall.syscall("capset", syscall.machine().capset, syscall.address(header), syscall.address(data))
