"""Which kernel is this? Build-id, release, architecture, version: read, never inferred."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

from sockpid import elf_notes, syscall
from sockpid.arch import Arch
from sockpid.errors import CapabilityError, SockpidError, SyscallError, UnknownKernelError
from sockpid.namedtuple import NamedTuple
from sockpid.uapi import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional

NOTES = "/sys/kernel/notes"
VERSION = "/proc/version"
THREAD = "/proc/thread-self"
LOCKDOWN = ("/sys/kernel/security/lockdown", "/proc/cmdline")  # securityfs may not be mounted

_version_code: Optional[int] = None
_time_offsets: Dict[str, int] = {}


class Identity(NamedTuple):
    """The running kernel. build_id: NT_GNU_BUILD_ID in hex, None where the kernel was linked without or hides it.

    release: `uname -r`, which distributions reuse for several builds. banner: the "Linux version ..." line.
    """

    arch: Arch
    build_id: Optional[str]
    release: str
    banner: str


def identify() -> Identity:
    """Reads the identity of the running kernel. Raises UnsupportedArchError."""
    arch = syscall.machine()
    build_id = None
    try:
        with open(NOTES, "rb") as file:
            build_id = elf_notes.build_id(file.read(), arch.byte_order)
    except OSError:  # no sysfs: release and banner have to do
        pass
    try:
        with open(VERSION, encoding="utf-8", errors="replace") as text:
            banner = text.read().strip()
    except OSError as error:
        raise SyscallError(f"open {VERSION}", error.errno or 0, "is /proc mounted?") from None
    return Identity(arch, build_id, _release(banner, os.uname().release), banner)


def _release(banner: str, uname: str) -> str:
    """The release out of the banner, with which all else that tells a version must agree. Raises UnknownKernelError.

    `setarch --uname-2.6` (man 2 personality, UNAME26) makes uname(2) tell an old version to programs that it runs.
    """
    words = banner.split(" ", 3)
    release = words[2] if words[:2] == ["Linux", "version"] and len(words) > 2 else ""
    code, numbers = version_code(), [part for part in release.split(".")[:2] if part.isdigit()]
    if uname != release and not uname.startswith("2.6."):
        raise UnknownKernelError(f"{VERSION} and uname(2) contradict one another: {release or banner!r}, {uname!r}")
    if code and len(numbers) == 2 and (code >> 16, code >> 8 & 255) != tuple(map(int, numbers)):
        raise UnknownKernelError(
            f"{VERSION} and the vDSO contradict one another: {release!r}, version {code >> 16}.{code >> 8 & 255}"
        )
    return release


def version_code() -> int:
    """LINUX_VERSION_CODE of the running kernel, from the ELF note "Linux" in the vDSO; 0 if there is none.

    Not from `uname -r`: Ubuntu and Debian put another number there, and kernels before 5.0 compare this one
    (Linux kernel commit 6c4fc209fcf9 ("bpf: remove useless version check for prog load") (in v5.0)).
    """
    global _version_code  # noqa: PLW0603 - read once
    if _version_code is None:
        _version_code = _read_version_code()
    return _version_code


def _read_version_code() -> int:
    arch = syscall.machine()
    image = _vdso()
    if image is None or image[:4] != b"\x7fELF":
        return 0
    mark = "<" if arch.byte_order == "little" else ">"
    if arch.pointer_size == 8:
        phoff, phentsize, phnum = struct.unpack_from(mark + "32xQ14xHH", image)
    else:
        phoff, phentsize, phnum = struct.unpack_from(mark + "28xI10xHH", image)
    for index in range(phnum):
        header = phoff + index * phentsize
        if struct.unpack_from(mark + "I", image, header)[0] != 4:  # PT_NOTE
            continue
        layout = mark + ("8xQ16xQ" if arch.pointer_size == 8 else "4xI8xI")
        offset, size = struct.unpack_from(layout, image, header)
        for name, note_type, desc in elf_notes.parse_notes(image[offset : offset + size], arch.byte_order):
            if name == "Linux" and note_type == 0 and len(desc) == 4:
                return int(struct.unpack(mark + "I", desc)[0])
    return 0


def _vdso() -> Optional[bytes]:
    """The vDSO's image out of our own memory."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.rstrip().endswith("[vdso]"):
                start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
                return ctypes.string_at(start, end - start)
    return None


def realtime() -> bool:
    """The kernel is a PREEMPT_RT one, whose plain spin locks sleep: it has a file that says so, or its version does."""
    return os.path.exists("/sys/kernel/realtime") or "PREEMPT_RT" in os.uname().version


def preemptible() -> bool:
    """Can the kernel take a task off its CPU while a BPF program runs in it? Then a program that is entered again there
    is skipped, by some mechanisms. True where the kernel does not say.

    The banner tells the model it was built with; the scheduler, in debugfs, the one that was chosen at boot, as
    "(full)" among the others.
    Linux kernel commit 1011dcce99f8 ("sched,preempt: Move preempt_dynamic to debug.c") (in v5.13)
    """
    version = os.uname().version
    if "PREEMPT" not in version:
        return False
    if "PREEMPT_RT" in version or "PREEMPT_DYNAMIC" not in version:
        return True
    try:
        chosen = _debugfs("sched/preempt").partition("(")[2].partition(")")[0]
    except (OSError, SyscallError):
        return True
    return chosen not in ("none", "voluntary")


def _debugfs(path: str) -> str:
    """A file of debugfs, from a mount that nobody else sees where it is not mounted. Raises OSError, SyscallError."""
    try:
        with open(f"/sys/kernel/debug/{path}", encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        mount = syscall.detached_mount("debugfs")
    try:
        file_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        try:
            return os.read(file_fd, 4096).decode("ascii", "replace")
        finally:
            os.close(file_fd)
    finally:
        os.close(mount)


def lockdown() -> Optional[str]:
    """What the kernel is locked down for, "integrity" or "confidentiality", or None (man 7 kernel_lockdown).

    Linux kernel commit 000d388ed3bb ("security: Add a static lockdown policy LSM") (in v5.4)
    """
    import re

    for path in LOCKDOWN:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(r"(?:\[|\blockdown=)(integrity|confidentiality|none)\b", file.read())
        except OSError:
            continue
        if found:
            return found.group(1) if found.group(1) != "none" else None
    return None


def parts_of(function: str) -> List[str]:
    """The symbols into which the compiler split a function: "NAME.part.0" and the like (/proc/kallsyms)."""
    start = function + "."
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
        return [name for name in (line.split()[2] for line in file) if name.startswith(start)]


def netns_inode() -> int:
    """Inode number of our network namespace, which the kernel keeps in net.ns.inum."""
    return os.stat("/proc/self/ns/net").st_ino


def task_flags() -> int:
    """task_struct.flags of this thread (field 9 of /proc/thread-self/stat)."""
    return int(_stat(_own_thread())[6])


def process_start_ticks() -> int:
    """When this process started, in clock ticks since boot (field 22 of /proc/self/stat)."""
    return int(_stat()[19])


def time_namespace_ticks() -> int:
    """Clock ticks that our time namespace adds to the boot time clock, in which /proc tells a process's start.

    Linux kernel commit 769071ac9f20 ("ns: Introduce Time Namespace") (in v5.6)
    """
    return _time_namespace_offset("boottime") * os.sysconf("SC_CLK_TCK") // 10**9


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC as the kernel has it, and its events with it: in a time namespace a process sees another one."""
    return time.monotonic_ns() - _time_namespace_offset("monotonic")


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _time_namespace_offset(clock: str) -> int:
    """Nanoseconds that our time namespace adds to a clock. They are fixed once a process is in it."""
    if not _time_offsets:
        _time_offsets.update({"monotonic": 0, "boottime": 0})
        try:
            with open("/proc/self/timens_offsets", encoding="ascii") as file:
                for line in file:
                    name, seconds, nanoseconds = line.split()
                    _time_offsets[name] = int(seconds) * 10**9 + int(nanoseconds)
        except OSError:
            pass
    return _time_offsets[clock]


def _own_thread() -> str:
    """The directory of the calling thread. Before Linux 3.17 that of the process has to do."""
    return THREAD if os.path.exists(THREAD) else "/proc/self"


def _stat(of: str = "/proc/self") -> List[str]:
    """The fields of a task's file stat after the name, which may hold blanks."""
    with open(f"{of}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def comm() -> str:
    """The name of this process as the kernel has it."""
    with open("/proc/self/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")


class CapabilitySets(NamedTuple):
    """The capability sets of a thread, as numbers with a bit each (/proc/PID/status)."""

    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int


def capability_sets(thread: int = 0) -> CapabilitySets:
    """The sets of one of our threads, by its id; 0: of the calling one."""
    found = {}
    with open(f"/proc/self/task/{thread}/status" if thread else f"{_own_thread()}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Cap"):
                name, value = line.split()
                found[name] = int(value, 16)
    names = (b"CapEff:", b"CapPrm:", b"CapInh:", b"CapBnd:", b"CapAmb:")
    return CapabilitySets(*(found.get(name, 0) for name in names))  # no ambient set before Linux 4.3


def effective_capabilities() -> int:
    """The effective capability set of this thread, a bit each."""
    return capability_sets().effective


def knows_capability(number: int) -> bool:
    """Does this kernel have a capability of that number? True where it does not say."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            return int(file.read()) >= number
    except OSError:
        return True


INITIAL_USER_NAMESPACE = 0xEFFFFFFD
"""Its inode: PROC_USER_INIT_INO of include/linux/proc_ns.h."""


def missing_capability(attempted: str) -> Optional[SockpidError]:
    """The error to raise after the kernel answered EPERM to `attempted`, if what this process may not do explains it.

    CAP_BPF and CAP_PERFMON: Linux kernel commit 2c78ee898d8f ("bpf: Implement CAP_BPF") (in v5.8);
    before it CAP_SYS_ADMIN.
    """
    have = effective_capabilities()
    if not have >> CAP_SYS_ADMIN & 1:
        for bit, name in ((CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")):
            if not have >> bit & 1:
                return CapabilityError(
                    f"{attempted}: Operation not permitted: this process lacks {name} "
                    f"(Linux 5.8 and later) and CAP_SYS_ADMIN; run it as root",
                    name,
                )
    try:
        inside = os.stat("/proc/self/ns/user").st_ino != INITIAL_USER_NAMESPACE
    except OSError:
        inside = False
    if inside:
        return CapabilityError(
            f"{attempted}: Operation not permitted: this process has its capabilities in a user namespace, where they "
            f"count for nothing here; run it as root of the host (rootless containers cannot do so)",
            "CAP_SYS_ADMIN",
        )
    return _filtered(attempted)


def _filtered(attempted: str) -> Optional[SockpidError]:
    """The error if not the kernel's BPF refuses, but who is asked before: a command that there is not is then refused
    in the same way."""
    try:
        syscall.bpf("no command", 0xFFFF, bytearray(4))
    except SyscallError as error:
        if error.errno == errno.EPERM:
            return SyscallError(
                attempted,
                errno.EPERM,
                f"all of bpf(2) is refused to this process: {_who_filters()}; "
                f"containers: --security-opt seccomp=unconfined, or a profile that allows bpf and perf_event_open",
            )
    return None


def _who_filters() -> str:
    """Who refuses system calls before they are made, as far as it can be told."""
    try:
        with open(f"{_own_thread()}/status", "rb") as file:
            if b"\nSeccomp:\t2" in file.read():
                return "it has a seccomp filter (Seccomp: 2 in /proc/self/status)"
    except OSError:
        pass
    return "a security module does so"


def no_bpf(attempted: str) -> SyscallError:
    """The error after ENOSYS."""
    return SyscallError(
        attempted, errno.ENOSYS, f"this kernel was built without bpf(2) (CONFIG_BPF_SYSCALL), unless {_who_filters()}"
    )
