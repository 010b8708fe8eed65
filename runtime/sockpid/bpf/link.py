"""Links: a program attached to a place in the kernel, by one of the mechanisms.

Which mechanism a kernel has is found by trying; the caller keeps the reasons of those that were refused.
"""

from __future__ import annotations

import os
import struct

from sockpid import syscall, uapi
from sockpid.errors import SyscallError
from sockpid.namedtuple import NamedTuple

from .prog import Prog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional

    from . import tracefs

    Load = Callable[[], Prog]


class Mechanism(NamedTuple):
    """How a program is attached: its type, the layout of its context ("args", "kprobe" or "record"), and what does it.

    attach takes the target's name and a function that loads the program, which it calls only once the place is there:
    loading is what takes time. by_btf_id: the program is loaded for one function, which it names by its BTF id;
    attach_type: how. returns: what the program must return. A tracepoint's other users in perf see no event for which
    it is 0. outlives: what it makes is there until it is removed, also if this process is killed.
    """

    prog_type: int
    context: str
    attach: Callable[[str, Load], Link]
    by_btf_id: bool = False
    attach_type: int = 0
    returns: int = 0
    outlives: bool = False


class Link:
    """An attached program. Detached by close(); the program stays its owner's."""

    def __init__(
        self, mechanism: str, target: str, prog: Prog, fd: int, event: Optional[tracefs.KprobeEvent] = None
    ) -> None:
        self.mechanism = mechanism
        self.target = target
        self.prog = prog
        self.fd = fd
        self._event = event

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._event is not None:
            self._event.close()
            self._event = None


def attach_fentry(target: str, load: Load) -> Link:
    """Linux kernel commit fec56f5890d9 ("bpf: Introduce BPF trampoline") (in v5.5)"""
    prog = load()
    attr = bytearray(struct.pack("=QI", 0, prog.fd))
    return Link("fentry", target, prog, syscall.bpf("BPF_RAW_TRACEPOINT_OPEN", uapi.BPF_RAW_TRACEPOINT_OPEN, attr))


def attach_lsm(target: str, load: Load) -> Link:
    """The kernel calls it wherever it asks its security modules, in the context of the process that asks for something.

    It is never skipped: nothing guards it against being entered again, by another task of the same CPU.
    Linux kernel commit 9e4e01dfd325 ("bpf: lsm: Implement attach, detach and execution") (in v5.7)
    """
    prog = load()
    attr = bytearray(struct.pack("=QI", 0, prog.fd))
    return Link("lsm", target, prog, syscall.bpf("BPF_RAW_TRACEPOINT_OPEN", uapi.BPF_RAW_TRACEPOINT_OPEN, attr))


def attach_raw_tp(target: str, load: Load) -> Link:
    """Linux kernel commit c4f6699dfcb8 ("bpf: introduce BPF_RAW_TRACEPOINT") (in v4.17)"""
    prog = load()
    name = bytearray(target.encode() + b"\0")
    attr = bytearray(struct.pack("=QI", syscall.address(name), prog.fd))
    return Link("raw_tp", target, prog, syscall.bpf("BPF_RAW_TRACEPOINT_OPEN", uapi.BPF_RAW_TRACEPOINT_OPEN, attr))


def attach_tracepoint(target: str, load: Load) -> Link:
    """Linux kernel commit 98b5c2c65c29 ("perf, bpf: allow bpf programs attach to tracepoints") (in v4.7)"""
    from . import perf, tracefs

    fd = perf.open_tracepoint(tracefs.Tracepoint(target).id)
    return Link("tracepoint", target, _hang(fd, load), fd)


def attach_kprobe_pmu(target: str, load: Load) -> Link:
    from . import perf

    fd = perf.open_kprobe(target)
    return Link("kprobe-pmu", target, _hang(fd, load), fd)


def attach_kprobe_tracefs(target: str, load: Load) -> Link:
    """Closed when the interpreter ends, if not before."""
    import atexit

    from . import perf, tracefs

    root = tracefs.mount()
    tracefs.remove_stale(root)
    with tracefs.Undisturbed():
        event = tracefs.KprobeEvent(root, target)
        try:
            fd = perf.open_tracepoint(event.id)
            link = Link("kprobe-tracefs", target, _hang(fd, load), fd, event)
        except BaseException:
            event.close()
            raise
        if not _outliving:
            atexit.register(_close_outliving)
        _outliving.append(link)
        return link


_outliving: List[Link] = []
"""Those whose kprobe events would outlive the process, closed or not."""


def _close_outliving() -> None:
    for link in _outliving:
        try:
            link.close()
        except (OSError, SyscallError):  # the next ones matter as much
            continue


def _hang(fd: int, load: Load) -> Prog:
    """Loads a program and hangs it on a perf event, which is closed if that fails."""
    from . import perf

    try:
        prog = load()
        perf.set_bpf(fd, prog.fd)
    except BaseException:
        os.close(fd)
        raise
    return prog


MECHANISMS: Dict[str, Mechanism] = {
    "lsm": Mechanism(uapi.BPF_PROG_TYPE_LSM, "args", attach_lsm, by_btf_id=True, attach_type=uapi.BPF_LSM_MAC),
    "fentry": Mechanism(
        uapi.BPF_PROG_TYPE_TRACING, "args", attach_fentry, by_btf_id=True, attach_type=uapi.BPF_TRACE_FENTRY
    ),
    "raw_tp": Mechanism(uapi.BPF_PROG_TYPE_RAW_TRACEPOINT, "args", attach_raw_tp),
    "tracepoint": Mechanism(uapi.BPF_PROG_TYPE_TRACEPOINT, "record", attach_tracepoint, returns=1),
    "kprobe-pmu": Mechanism(uapi.BPF_PROG_TYPE_KPROBE, "kprobe", attach_kprobe_pmu),
    "kprobe-tracefs": Mechanism(uapi.BPF_PROG_TYPE_KPROBE, "kprobe", attach_kprobe_tracefs, outlives=True),
}

OF_TARGET = {
    "lsm": ("lsm",),
    "raw_tp": ("raw_tp",),
    "tracepoint": ("tracepoint",),
    "fentry": ("fentry",),
    "kprobe": ("kprobe-pmu", "kprobe-tracefs"),
    "func": ("fentry", "kprobe-pmu", "kprobe-tracefs"),
}
"""Kind of target (hooks.Target.kind) -> mechanisms, best first."""
