"""Kprobes through tracefs, for kernels whose perf has no kprobe PMU (before 4.17), and the tracepoints it lists."""

from __future__ import annotations

import errno
import itertools
import os

from sockpid.errors import SyscallError
from sockpid.table.layout import Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

MOUNTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
GROUP = "sockpid_"
_numbers = itertools.count()


def mount() -> str:
    """Where tracefs is mounted. Raises SyscallError, telling how to mount it."""
    for path in MOUNTS:
        if os.path.exists(path + "/events"):
            return path
    raise SyscallError(
        "find tracefs", errno.ENOENT, f"none at {', '.join(MOUNTS)}; `mount -t tracefs tracefs {MOUNTS[0]}` makes one"
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise SyscallError(f"read {path}", error.errno or errno.EIO) from None


class Tracepoint:
    """A tracepoint, named "system/event". id: what perf_event_open takes. fields: of the record that a program gets.

    Where the fields lie is the kernel's to say: real-time kernels put more in front of them.
    """

    def __init__(self, name: str) -> None:
        """Raises SyscallError where there is no such tracepoint."""
        import re

        directory = f"{mount()}/events/{name}"
        self.id = int(_read(directory + "/id"))
        self.fields: Dict[str, Field] = {}
        for line in _read(directory + "/format").splitlines():
            found = re.match(r"\s*field:.*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);", line)
            if found:
                self.fields[found.group(1)] = Field(int(found.group(2)) * 8, int(found.group(3)) * 8)


def _write(root: str, line: str) -> None:
    """One line into kprobe_events: the file takes a line per write(2), hence no buffered file object."""
    try:
        fd = os.open(root + "/kprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        raise SyscallError(f"write {line!r} to kprobe_events", error.errno or errno.EIO) from None


class Undisturbed:
    """No exception of a signal's handler comes into the block, between what is made and would stay behind and the note
    of it. For the first thread; others must have blocked these signals for good.

    A process that is forked keeps the events of its parent busy, so that they cannot be removed: so it counts as well.
    """

    def __enter__(self) -> None:
        import signal

        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

    def __exit__(self, *_: object) -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


class KprobeEvent:
    """A kprobe event under a name of our own; `id` is what perf_event_open takes. Removed by close().

    Of one function a process can have many.
    """

    def __init__(self, root: str, function: str) -> None:
        self._root = root
        self._name = f"{GROUP}{os.getpid()}/{function}_{next(_numbers)}"
        _write(root, f"p:{self._name} {function}")
        try:
            self.id = int(_read(f"{root}/events/{self._name}/id"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._name:
            _write(self._root, f"-:{self._name}")
            self._name = ""


def remove_stale(root: str) -> int:
    """Removes the events of instances that died without doing so; returns how many."""
    import re

    removed = 0
    for line in _read(root + "/kprobe_events").splitlines():
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
