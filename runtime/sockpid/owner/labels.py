"""Who an owner is, in the words of those who run the host: command line, container, pod, unit, chosen variables."""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

    from sockpid.host import container

KINDS = ("cmdline", "container", "unit")
MAX_BYTES = 4096
"""So much of a command line or variable is told."""


class Wanted(NamedTuple):
    """kinds: of KINDS. env: names of environment variables."""

    kinds: Tuple[str, ...] = ()
    env: Tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kinds or self.env)


def empty(wanted: Wanted, reason: Optional[str]) -> Dict[str, Any]:
    """The labels of an owner that nothing can be read of, and why: "exited", "permission" or "pid-namespace"."""
    found: Dict[str, Any] = {}
    if "cmdline" in wanted.kinds:
        found["cmdline"] = None
    if "container" in wanted.kinds:
        found.update(container_id=None, container_runtime=None, pod_uid=None)
    if "unit" in wanted.kinds:
        found["unit"] = None
    if wanted.env:
        found["env"] = None
    found["reason"] = reason
    return found


def read(wanted: Wanted, pid: int, start_ns: int, has_ended: bool = False) -> Dict[str, Any]:
    """The labels of the process with this id and start (CLOCK_BOOTTIME ns). has_ended: see proc.is_exited().

    An id may be given to another process at any time, so nothing is believed unless the process is still the one that
    started then after all has been read.
    """
    from sockpid.host import proc

    found = empty(wanted, None)
    exited = proc.is_exited(pid, start_ns, has_ended)
    if exited is False:
        try:
            if "cmdline" in wanted.kinds:
                found["cmdline"] = _cmdline(proc.read(pid, "cmdline"))
            if "container" in wanted.kinds or "unit" in wanted.kinds:
                from sockpid.host import container

                place(found, container.of_process(proc.read(pid, "cgroup").decode("utf-8", "replace")))
            if wanted.env:
                found["env"] = environment(proc.read(pid, "environ"), wanted.env)
        except PermissionError:
            found["reason"] = "permission"
        except OSError:
            pass  # it is going; the next line says so
        exited = proc.is_exited(pid, start_ns, has_ended)
    if exited is None:
        return empty(wanted, "pid-namespace")
    return empty(wanted, "exited") if exited else found


def place(found: Dict[str, Any], where: container.Place) -> None:
    """Puts what a control group's path says among the labels, as far as it is wanted."""
    for name, value in (
        ("container_id", where.container_id),
        ("container_runtime", where.runtime),
        ("pod_uid", where.pod_uid),
        ("unit", where.unit),
    ):
        if name in found:
            found[name] = value


def environment(data: bytes, names: Tuple[str, ...]) -> Dict[str, Optional[str]]:
    """Of /proc/PID/environ: the variables as the program was started with; what it set later is not there."""
    found: Dict[str, Optional[str]] = dict.fromkeys(names)
    for entry in data.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and _text(name) in found:
            found[_text(name)] = _text(value)
    return found


def _cmdline(data: bytes) -> Optional[str]:
    """Arguments with blanks between. None: a zombie or a kernel thread has none."""
    return _text(data.rstrip(b"\0").replace(b"\0", b" ")) or None


def _text(data: bytes) -> str:
    return data[:MAX_BYTES].decode("utf-8", "replace")
