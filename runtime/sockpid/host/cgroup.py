"""Control groups, as far as an event names one: from the id on the cgroup v2 hierarchy to a path."""

from __future__ import annotations

import os
import posixpath
import time

from . import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional

RESCAN_SECONDS = 1.0
KEEP_GONE = 4096
"""Groups that are remembered although they are gone: their events may come late."""


def of_process(pid: int) -> Optional[str]:
    """The path of the cgroup v2 that a process is in now. None without one, or if the process is gone."""
    try:
        lines = proc.read(pid, "cgroup").decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


class CgroupPaths:
    """Paths of control groups by id, remembered; an unknown id makes it look again, at most once a second.

    An id is what bpf_get_current_cgroup_id() gives. On 64-bit machines it is the directory's inode number since
    Linux kernel commit 40430452fd5d ("kernfs: use 64bit inos if ino_t is 64bit") (in v5.5).
    Before, and on 32-bit machines, the inode number is its lower half only; the upper one tells groups apart that had
    the number in turn, so that a path found that way may be of a group that came later.
    """

    def __init__(self, mount: Optional[str] = None) -> None:
        """`mount`: where cgroup v2 is mounted; by default the first such mount, also of a hybrid hierarchy."""
        found = next((m for m in proc.mounts() if m.fstype == "cgroup2"), None) if mount is None else None
        self.mount = found.path if found else mount
        self._root = found.root if found else "/"
        self._paths: Dict[int, str] = {}
        self._scanned = float("-inf")

    def path(self, cgroup_id: int) -> Optional[str]:
        """The path as in /proc/PID/cgroup, such as "/user.slice/user-0.slice"; "/" is the root.

        None for 0, for a group that is gone, and where there is no cgroup v2. A group keeps the name it was first seen
        with: a renamed one is not noticed, and cgroup v2 does not rename.
        """
        if not cgroup_id or self.mount is None:
            return None
        known = self._known(cgroup_id)
        now = time.monotonic()
        if known is None and now - self._scanned >= RESCAN_SECONDS:
            self._scan()
            self._scanned = now
            known = self._known(cgroup_id)
        return known

    def number(self, path: str) -> Optional[int]:
        """The inode number of the group with this path, which is its id as far as that was said above. None if it is
        not there."""
        if self.mount is None:
            return None
        try:
            return os.stat(posixpath.join(self.mount, posixpath.relpath(path, self._root))).st_ino
        except OSError:
            return None

    def _known(self, cgroup_id: int) -> Optional[str]:
        known = self._paths.get(cgroup_id)
        return self._paths.get(cgroup_id & 0xFFFFFFFF) if known is None else known

    def _scan(self) -> None:
        """Takes up every directory below the mount. Of those that are gone the latest stay."""
        assert self.mount is not None
        try:
            found = {os.stat(self.mount).st_ino: self._root}
        except OSError:
            return
        pending = [(self.mount, self._root)]
        while pending:
            directory, path = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            below = posixpath.join(path, entry.name)
                            found[entry.inode()] = below
                            pending.append((entry.path, below))
            except OSError:  # removed meanwhile
                continue
        gone = [inode for inode in self._paths if inode not in found]
        self._paths = {**{inode: self._paths[inode] for inode in gone[-KEEP_GONE:]}, **found}
