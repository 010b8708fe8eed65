"""Kprobes through tracefs, for kernels whose perf has no kprobe PMU (before 4.17)."""

from __future__ import annotations

import errno
import os
import re
from typing import Optional

from .errors import SyscallError

MOUNTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
GROUP = "sockpid_"


def mount() -> Optional[str]:
    """Where tracefs is mounted, or None."""
    for path in MOUNTS:
        if os.path.exists(path + "/kprobe_events"):
            return path
    return None


def _write(root: str, line: str) -> None:
    """One line into kprobe_events: the file takes a line per write(2), hence no buffered file object."""
    fd = os.open(root + "/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode() + b"\n")
    except OSError as error:
        raise SyscallError(f"write {line!r} to kprobe_events", error.errno or errno.EIO) from None
    finally:
        os.close(fd)


class KprobeEvent:
    """A kprobe event under a name of our own; `id` is what perf_event_open takes. Removed by close()."""

    def __init__(self, root: str, function: str) -> None:
        self._root = root
        self._name = f"{GROUP}{os.getpid()}/{function}"
        _write(root, f"p:{self._name} {function}")
        with open(f"{root}/events/{self._name}/id", encoding="ascii") as file:
            self.id = int(file.read())

    def close(self) -> None:
        if self._name:
            _write(self._root, f"-:{self._name}")
            self._name = ""


def remove_stale(root: str) -> int:
    """Removes the events of instances that died without doing so; returns how many."""
    removed = 0
    with open(root + "/kprobe_events", encoding="ascii") as file:
        lines = file.readlines()
    for line in lines:
        match = re.match(r"[pr][0-9]*:(" + GROUP + r"([0-9]+)/\S+) ", line)
        if match and not os.path.exists(f"/proc/{match.group(2)}"):
            try:
                _write(root, f"-:{match.group(1)}")
                removed += 1
            except SyscallError as error:
                # EBUSY: its perf descriptor lives on in another process. ENOENT: somebody was faster.
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise
    return removed
