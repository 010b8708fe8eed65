"""What /proc says of processes: when they started, whether they are gone, and which sockets they hold.

Process ids are those of the pid namespace that /proc is mounted for. They are what the kernel and its events mean only
in the initial one: see in_initial_pid_namespace().
"""

from __future__ import annotations

import os

from sockpid import syscall, uapi
from sockpid.errors import SockpidError
from sockpid.namedtuple import NamedTuple

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import AbstractSet, Dict, Iterator, List, Optional, Set, Tuple

THREADS_MAX = 4096
"""So many threads of a process are asked whether they have a table of descriptors of their own."""

PROC_PID_INIT_INO = 0xEFFFFFFC  # include/linux/proc_ns.h: inode of the first pid namespace


class Holder(NamedTuple):
    """A process that has a socket open. start_ticks: see start_ticks()."""

    pid: int
    comm: str
    start_ticks: int


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo: file system type, root of the mount within it, where it is mounted, and the
    options and the device of the file system. A later mount may hide it."""

    fstype: str
    root: str
    path: str
    options: str
    device: int


def pids() -> List[int]:
    """The processes there are, in the order of their ids."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def in_initial_pid_namespace() -> bool:
    """Do process ids mean to us what they mean to the kernel? False also where the kernel does not say."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == PROC_PID_INIT_INO
    except OSError:
        return False


def _stat(pid: int) -> Optional[List[str]]:
    """Fields 3 and following of /proc/PID/stat: those after the name, which may hold blanks. None: no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:  # ENOENT, or ESRCH when it goes while we read
        return None
    return fields or None


def start_ticks(pid: int) -> Optional[int]:
    """When a process started, in clock ticks since boot of our time namespace (field 22 of /proc/PID/stat).

    None if there is no such process.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def ticks_of(start_ns: int) -> int:
    """The clock ticks that start_ticks() gives for a start time in CLOCK_BOOTTIME ns, as events carry it.

    May be one too low in a time namespace whose offset is not a whole number of ticks.
    """
    return start_ns * os.sysconf("SC_CLK_TCK") // 10**9 + kernel.time_namespace_ticks()


def ns_of(ticks: int) -> int:
    """The reverse of ticks_of(): the earliest start in CLOCK_BOOTTIME ns that gives these ticks (of 10 ms, mostly)."""
    return -(-(ticks - kernel.time_namespace_ticks()) * 10**9 // os.sysconf("SC_CLK_TCK"))


def is_exited(pid: int, start_ns: int, has_ended: bool = False) -> Optional[bool]:
    """Is the process with this id and this start (its group leader's, CLOCK_BOOTTIME ns) gone?

    A process of which only the zombie is left is gone; one whose first thread alone has ended is not. A process that
    got the same id later is another, even if it started within the same clock tick, where it is known that the first
    thread of the one that is meant has ended (has_ended). None if we cannot tell: the id is of another pid namespace
    than ours, or /proc hides it.
    """
    if not in_initial_pid_namespace():
        return None
    fields = _stat(pid)
    if fields is None:
        return None if _hidden(pid) else True
    state, threads, ticks = fields[0], int(fields[17]), int(fields[19])
    if not 0 <= ticks - ticks_of(start_ns) <= 1:
        return True
    return threads <= 1 if state in "ZX" else has_ended


def _hidden(pid: int) -> bool:
    """Does a process exist that /proc does not show (mount option hidepid)? Signal 0 asks without sending."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def namespace_pid(pid: int) -> Optional[int]:
    """The id that a process has in its own pid namespace (last number of NSpid in /proc/PID/status).

    None if there is no such process, or no such line.
    Linux kernel commit e4bc33245124 ("/proc/PID/status: show all sets of pid according to ns") (in v4.1)
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass
    return None


def comm(pid: int) -> Optional[str]:
    """The name of a process, at most 15 bytes of whatever it chose. None if there is no such process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return None


def read(pid: int, name: str) -> bytes:
    """The file /proc/PID/`name`. Raises OSError."""
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def holders(inodes: AbstractSet[int]) -> Dict[int, List[Holder]]:
    """Which processes have these sockets open: inode -> holders, the oldest first. Inodes without any are left out.

    One pass over the descriptors of all processes. Processes that end meanwhile or may not be looked into (another
    user's, without CAP_SYS_PTRACE) are passed over. A socket is also kept open by a message in flight (SCM_RIGHTS) and
    by io_uring's registered files: neither is a holder here.
    """
    found: Dict[int, List[Holder]] = {}
    for pid in pids():
        held = socket_inodes(pid) & inodes
        if not held:
            continue
        name, ticks = comm(pid), start_ticks(pid)
        if name is None or ticks is None:
            continue
        for inode in held:
            found.setdefault(inode, []).append(Holder(pid, name, ticks))
    for of_inode in found.values():
        of_inode.sort(key=lambda holder: (holder.start_ticks, holder.pid))
    return found


def socket_inodes(pid: int) -> Set[int]:
    """Inodes of the sockets that a process has open; of those that can be read, if it ends meanwhile."""
    return {int(link[8:-1]) for _, link in links(pid) if link.startswith("socket:[")}


def links(pid: int) -> Iterator[Tuple[str, str]]:
    """The descriptors of a process: path ("/proc/7/fd/3"), and what it refers to ("socket:[4711]")."""
    for directory, names in _descriptors(pid):
        for name in names:
            try:
                yield directory + name, os.readlink(directory + name)
            except OSError:  # closed meanwhile
                continue


def _descriptors(pid: int) -> Iterator[Tuple[str, List[str]]]:
    """Directories of descriptors with their names: one for each table of descriptors that the process's threads have.

    Nearly always that is one. A first thread that has ended has none, and any thread may have taken a copy of its own
    (unshare(CLONE_FILES)).
    """
    for directory in _tables(pid):
        try:
            yield directory, os.listdir(directory)
        except OSError:
            continue


def _tables(pid: int) -> Iterator[str]:
    first = f"/proc/{pid}/fd/"
    yield first
    try:
        if os.stat(f"/proc/{pid}/task").st_nlink <= 3:  # itself, its name, and a thread
            return
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    known = [(pid, first)]
    for thread in threads[:THREADS_MAX]:
        tid, directory = int(thread), f"/proc/{pid}/task/{thread}/fd/"
        if tid != pid and not any(_share_table(tid, directory, *other) for other in known):
            known.append((tid, directory))
            yield directory


def _share_table(tid: int, directory: str, other: int, directory_of_other: str) -> bool:
    """Have two threads one table of descriptors? Where the kernel does not compare (CONFIG_KCMP), tables with the same
    numbers count as one."""
    try:
        return syscall.kcmp(other, tid, uapi.KCMP_FILES) == 0
    except SockpidError:
        pass
    try:
        return os.listdir(directory) == os.listdir(directory_of_other)
    except OSError:
        return False


def hides_others() -> bool:
    """Does /proc show us our own processes only (mount option hidepid)? Not where CAP_SYS_PTRACE lifts it."""
    try:
        seen = os.stat("/proc").st_dev  # one that another mount hides does not matter
    except OSError:
        return False
    of_proc = [mount.options for mount in mounts() if mount.path == "/proc" and mount.device == seen]
    return any(
        option.startswith("hidepid=") and option[8:] not in ("0", "off") for option in ",".join(of_proc).split(",")
    )


def mounts() -> Iterator[Mount]:
    """What is mounted in our mount namespace. Linux kernel file Documentation/filesystems/proc.rst, section 3.5."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                fields = before.split()
                fstype, *_, options = after.split()
                major, minor = (int(number) for number in fields[2].split(":"))
                yield Mount(fstype, _unescape(fields[3]), _unescape(fields[4]), options, os.makedev(major, minor))
    except OSError:
        return


def _unescape(text: str) -> str:
    """Undoes the octal escapes of blanks, tabs, line feeds and backslashes."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
