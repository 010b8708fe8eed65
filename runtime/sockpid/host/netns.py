"""Network namespaces: which there are, and how to look into one without leaving our own.

A namespace is known by its inode number, which is what the kernel keeps in net.ns.inum and an event carries. It is
found through a process that lives in it, through a bind mount that keeps it alive (`ip netns add`, container runtimes),
through a descriptor that somebody has of it, or through a socket in it.
"""

from __future__ import annotations

import os
import threading

from sockpid import syscall
from sockpid.namedtuple import NamedTuple
from sockpid.uapi import CLONE_NEWNET, SIOCGSKNS

from . import kernel, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

    T = TypeVar("T")

MOUNTINFO = "/proc/self/mountinfo"

_NONE = -1
_held = [_NONE]
"""A descriptor of the namespace that hold() keeps."""


class Namespace(NamedTuple):
    """A network namespace. pids: processes in it when we looked; file: one that refers to it, bound to it or a
    descriptor in /proc, or None.

    inode is 0 on a kernel without CONFIG_NET_NS, as in events.
    """

    inode: int
    pids: List[int]
    file: Optional[str]


def find(held: Optional[Mapping[int, str]] = None) -> List[Namespace]:
    """All network namespaces in sight, our own first. held: descriptors of some, inode -> path.

    A process of another user is in sight with CAP_SYS_PTRACE only.
    """
    try:
        own = kernel.netns_inode()
    except FileNotFoundError:
        return [Namespace(0, [os.getpid()], None)]
    pids: Dict[int, List[int]] = {own: []}
    for pid in proc.pids():
        try:
            pids.setdefault(os.stat(f"/proc/{pid}/ns/net").st_ino, []).append(pid)
        except OSError:  # gone, or not ours to see
            continue
    files = {**(held or {}), **_mounts()}
    return [Namespace(inode, pids.get(inode, []), files.get(inode)) for inode in {**pids, **files}]


def hold(inode: int) -> bool:
    """Keeps a namespace from ending, until another is held in its place: its inode number is nobody else's so long.
    False if nothing in sight refers to it."""
    try:
        fd = _open(next((found for found in find() if found.inode == inode), Namespace(inode, [], None)))
    except ProcessLookupError:
        fd = _NONE
    before, _held[0] = _held[0], fd
    if before != _NONE:
        os.close(before)
    return fd != _NONE


def _mounts() -> Dict[int, str]:
    """Bind mounts of network namespaces in our mount namespace: inode -> path. One that a later mount hides is none."""
    found: Dict[int, str] = {}
    for mount in proc.mounts():
        if mount.fstype == "nsfs" and mount.root.startswith("net:["):
            inode = int(mount.root[5:-1])
            try:
                seen = os.stat(mount.path)
            except OSError:
                continue
            if (seen.st_ino, seen.st_dev) == (inode, mount.device):
                found.setdefault(inode, mount.path)
    return found


def of_socket(pid: int, fd: int) -> Tuple[int, int]:
    """The namespace of a socket that a process has open: its inode, and a descriptor of it for us to close.

    Raises OSError where the kernel does not do that, or not for us (SIOCGSKNS wants CAP_NET_ADMIN there).
    Linux kernel commit c62cce2caee5 ("net: add an ioctl to get a socket network namespace") (in v4.10)
    """
    import fcntl

    ours = syscall.pidfd_getfd(pid, fd)
    try:
        namespace = fcntl.ioctl(ours, SIOCGSKNS)
    finally:
        os.close(ours)
    return os.fstat(namespace).st_ino, namespace


def run_in(namespace: Namespace, function: Callable[[], T]) -> T:
    """Calls `function` in the namespace and returns what it returns, or raises what it raises.

    A thread made for this enters and ends; the caller's thread stays where it is. Raises ProcessLookupError if the
    namespace can no longer be reached, SyscallError (EPERM) without CAP_SYS_ADMIN.
    """
    if namespace.inode == 0 or namespace.inode == kernel.netns_inode():
        return function()
    fd = _open(namespace)
    results: List[T] = []
    errors: List[BaseException] = []

    def enter() -> None:
        try:
            syscall.setns(fd, CLONE_NEWNET)
            results.append(function())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)

    try:
        thread = threading.Thread(target=enter, name=f"netns-{namespace.inode}")
        thread.start()
        thread.join()
    finally:
        os.close(fd)
    if errors:
        raise errors[0]
    return results[0]


def _open(namespace: Namespace) -> int:
    """A descriptor of the namespace. A process may have died or moved since, so what was opened is looked at."""
    paths = [namespace.file] if namespace.file else []
    for path in paths + [f"/proc/{pid}/ns/net" for pid in namespace.pids]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if os.fstat(fd).st_ino == namespace.inode:
            return fd
        os.close(fd)
    raise ProcessLookupError(f"network namespace {namespace.inode}: nothing refers to it any more")


def read(namespace: Namespace, name: str) -> str:
    """The file /proc/net/`name` of the namespace.

    Raises FileNotFoundError if there is no such file (tcp6 without IPv6), and the errors of run_in, which is not needed
    while a process lives in the namespace.
    """
    for pid in namespace.pids:
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                text = file.read()
            if namespace.inode in (0, os.stat(f"/proc/{pid}/ns/net").st_ino):
                return text
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/net/dev"):  # the process is there, the file is not
                raise
        except OSError:  # ESRCH, EINVAL: it died meanwhile
            continue
    return run_in(namespace, lambda: _read_own(name))


def _read_own(name: str) -> str:
    """As the calling thread sees it: /proc/net is the main thread's."""
    with open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
        return file.read()
