"""Maps pinned on a bpf file system, where other programs find them (docs/socket-to-pid.md).

The directory that `--pin` names holds one directory per version of the interface, and in that the maps under their own
names: DIR/v2/socket_to_pid. libbpf and aya look for a pinned map under its own name; and names on bpffs hold no dots
(bpf_lookup() in kernel/bpf/inode.c), which rules out "socket_to_pid.v2".

A running instance keeps DIR locked (flock), and the kernel drops the lock when it dies, however it dies. So one
instance at a time pins there, and a map that a killed one has left behind is known to be outdated.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time

from sockpid.bpf.map import Map
from sockpid.errors import PinError, UsageError

from .pinned import ABI, OWN, open_any, open_map, open_pinned, pin_fd, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List

DIRECTORY = "/sys/fs/bpf/sockpid"

LOCK_SECONDS = 1.0
"""How long to try for the lock: who only asks whether an instance runs holds it for a moment."""


def path_of(directory: str, name: str) -> str:
    """Where a map of this version is pinned."""
    return f"{directory}/v{ABI}/{name}"


def bpffs(directory: str) -> None:
    """Raises UsageError unless the directory, or its parent if it is yet to be made, lies on a bpf file system.

    Goes by the device number in /proc/self/mountinfo: Python has no statfs(2), and os.statvfs() no f_type.
    """
    path = directory if os.path.isdir(directory) else os.path.dirname(os.path.abspath(directory))
    try:
        device = os.stat(path).st_dev
    except FileNotFoundError:
        raise UsageError(f"{directory}: there is no {path} to make it in") from None
    except OSError as error:
        raise refused(f"stat {path}", error) from None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    mounted: List[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            if fields[fields.index("-") + 1] == "bpf":
                if fields[2] == wanted:
                    return
                mounted.append(fields[4])
    hint = f"there is one at {', '.join(mounted)}" if mounted else "`mount -t bpf bpf /sys/fs/bpf` makes one"
    raise UsageError(f"{directory} is not on a bpf file system, where alone maps can be pinned; {hint}")


class Pins:
    """The right to pin maps in a directory, for as long as this is open.

    Open it before the probe is attached, and close it after the probe is gone: close() also empties the maps, since a
    program that still has one open would take what it says of closed sockets for true. That costs some microseconds per
    entry.
    """

    def __init__(self, directory: str) -> None:
        """Makes the directories (mode 0700) and locks. Raises UsageError, CapabilityError, and PinError if another
        instance pins there or others may write there."""
        bpffs(directory)
        self._directory = directory
        self._pinned: Dict[str, Map] = {}
        for made in (directory, f"{directory}/v{ABI}", f"{directory}/{OWN}"):
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(made, 0o700)
            except OSError as error:
                raise refused(f"make {made}", error) from None
            _demand_trusted(made)
        self._lock = _open_directory(directory)
        end = time.monotonic() + LOCK_SECONDS
        while not _lock(self._lock, fcntl.LOCK_EX):
            if time.monotonic() > end:
                os.close(self._lock)
                from .instance import holder

                who = holder(directory)
                raise PinError(
                    f"{directory} is in use by another sockpid{who}; end that one, or pin in another directory"
                )
            time.sleep(0.01)
        _clear_other_versions(directory)

    def pin(self, pinned: Map) -> str:
        """Pins a map under its name with mode 0600, and returns the path. What a killed instance left there is emptied
        and replaced; there is no moment without a map. Raises PinError for a map of another shape in its place."""
        spec = pinned.spec
        path = path_of(self._directory, spec.name)
        stale = open_map(path, spec.key_size, spec.value_size, 0) if os.path.lexists(path) else None
        try:
            pin_fd(pinned.fd, path)
            if stale is not None:
                _empty(stale)
        finally:
            if stale is not None:
                stale.close()
        return self.adopt(pinned)

    def adopt(self, pinned: Map) -> str:
        """As pin() of the very map that is pinned there already."""
        path = path_of(self._directory, pinned.spec.name)
        self._pinned[path] = Map(pinned.spec, os.dup(pinned.fd), pinned.value_size)
        return path

    def leave(self) -> None:
        """What is pinned stays as it is at close()."""
        for pinned in self._pinned.values():
            pinned.close()
        self._pinned.clear()

    def close(self) -> None:
        """Unpins and empties what was pinned, and unlocks. The directories stay."""
        for path, pinned in self._pinned.items():
            with contextlib.suppress(OSError):  # somebody else took it away
                os.unlink(path)
            _empty(pinned)
            pinned.close()
        self._pinned.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Pins:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clear(directory: str) -> None:
    """Takes away what an instance that has ended left, and the programs that are attached through it."""
    for below in (f"{directory}/v{ABI}", f"{directory}/{OWN}"):
        with contextlib.suppress(OSError):
            for name in os.listdir(below):
                os.unlink(f"{below}/{name}")


def _clear_other_versions(directory: str) -> None:
    """Empties and takes away what a killed instance of another version left, so that nobody believes it."""
    for name in os.listdir(directory):
        below = f"{directory}/{name}"
        if name[:1] != "v" or not name[1:].isdigit() or name == f"v{ABI}":
            continue
        with contextlib.suppress(OSError, PinError):
            for entry in os.listdir(below):
                with contextlib.closing(open_any(f"{below}/{entry}")) as stale:
                    _empty(stale)
                os.unlink(f"{below}/{entry}")
            os.rmdir(below)


def is_locked(directory: str) -> bool:
    """Does an instance run that pins there? Raises UsageError as bpffs() does, and PinError."""
    bpffs(directory)
    if not os.path.isdir(directory):
        return False
    lock = _open_directory(directory)
    try:
        return not _lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def open_running(directory: str, name: str, key_size: int, value_size: int) -> Map:
    """The map that a running instance has pinned, for reading. Raises PinError if none runs, else as open_pinned."""
    bpffs(directory)
    if not os.path.isdir(directory):
        raise PinError(f"no sockpid runs with --pin {directory}: there is no such directory")
    lock = _open_directory(directory)
    try:
        for checked in (directory, f"{directory}/v{ABI}"):
            if os.path.lexists(checked):
                _demand_trusted(checked)
        if _lock(lock, fcntl.LOCK_SH):
            raise PinError(f"no sockpid runs with --pin {directory}")
    finally:
        os.close(lock)
    path = path_of(directory, name)
    if not os.path.lexists(path):
        others = [entry for entry in sorted(os.listdir(directory)) if os.path.lexists(f"{directory}/{entry}/{name}")]
        found = f"; the one that runs has {', '.join(others)}" if others else "; is sockpid still starting?"
        raise PinError(f"no {name} of version v{ABI} is pinned in {directory}{found}")
    return open_pinned(path, key_size, value_size)


def _empty(emptied: Map) -> None:
    for key in list(emptied.keys()):  # first all: after a key that is gone the kernel starts anew
        emptied.delete(key)


def _demand_trusted(directory: str) -> None:
    """Raises PinError if others could have put something there: the root of a bpffs is open to all, as /tmp is."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise PinError(f"{directory} is not a directory")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise PinError(
            f"{directory} is not to be trusted: it belongs to user {found.st_uid} and has mode "
            f"{stat.S_IMODE(found.st_mode):04o}; only root may write there"
        )


def _open_directory(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refused(f"open {path}", error) from None


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
