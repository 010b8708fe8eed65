"""What this kernel can do: found out by trying it, and only when a choice depends on it.

Never inferred from a version: vendors backport. Each capability can be denied, so that what is done without it is tried
on any kernel.
"""

from __future__ import annotations

import errno

from sockpid import syscall, uapi
from sockpid.errors import ProgError, SyscallError
from sockpid.host import kernel
from sockpid.image import image
from sockpid.image.insn import ADD64, CALL, EXIT, LDX_DW, MOV64, MOV64_X, Insn

from . import link, prog
from .deniable import FEATURES
from .map import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, FrozenSet, List, Mapping, Optional

PLACES = {
    "lsm": "bpf_lsm_socket_listen",
    "fentry": "tcp_connect",
    "raw_tp": "sched_process_exec",
    "tracepoint": "sched/sched_process_exec",
    "kprobe-pmu": "tcp_connect",
    "kprobe-tracefs": "tcp_connect",
}
"""Where each mechanism is tried."""


class Features:
    """The capabilities of the running kernel, less those denied. btf_id: as Offsets.btf_id, for fentry and LSM."""

    def __init__(self, deny: FrozenSet[str] = frozenset(), btf_id: Callable[[str], int] = lambda _: 0) -> None:
        self._deny = deny
        self._btf_id = btf_id
        self._missing: Dict[str, Optional[str]] = {}

    def missing(self, name: str) -> Optional[str]:
        """Why the kernel lacks a capability, None if it has it. Tried once.

        Raises CapabilityError where this process lacks the right to try, SyscallError for another refusal of that kind.
        """
        if name in self._deny:
            return "denied by option"
        if name not in self._missing:
            self._missing[name] = self._try(name)
        return self._missing[name]

    def has(self, name: str) -> bool:
        return self.missing(name) is None

    def report(self) -> List[Dict[str, Optional[str]]]:
        """Every capability, tried: name, what it is, "present", "absent" or "denied", why, and what is done without."""
        rows: List[Dict[str, Optional[str]]] = []
        for name, feature in FEATURES.items():
            reason = self.missing(name)
            state = "denied" if name in self._deny else "present" if reason is None else "absent"
            without = None if reason is None else feature.without
            rows.append({"name": name, "what": feature.what, "state": state, "reason": reason, "without": without})
        return rows

    def _try(self, name: str) -> Optional[str]:
        try:
            _TRIALS[name](self)
        except (ProgError, SyscallError) as error:
            if isinstance(error, SyscallError) and error.errno == errno.EPERM:
                lacking = kernel.missing_capability(error.name)
                if lacking is not None:
                    raise lacking from None
                if _is_refused_at_all(error.name):
                    raise
            return str(error)
        return None

    def _attach(self, mechanism: str) -> None:
        how, place = link.MECHANISMS[mechanism], PLACES[mechanism]
        loaded = []
        btf_id = 0
        if how.by_btf_id:
            btf_id = self._btf_id(place)
            if not btf_id:
                raise SyscallError("look up the BTF id", errno.ENOENT, f"neither offsets nor BTF have one for {place}")

        def load() -> prog.Prog:
            loaded.append(_load(how.prog_type, b"", btf_id, how.attach_type))
            return loaded[0]

        try:
            how.attach(place, load).close()
        finally:
            for trial in loaded:
                trial.close()


def read_argument(tracepoint: str, number: int) -> None:
    """Attaches a program that reads argument `number`, from 0, of a raw tracepoint. SyscallError if it has fewer.

    Linux kernel commit c4f6699dfcb8 ("bpf: introduce BPF_RAW_TRACEPOINT") (in v4.17)
    """
    load = Insn(LDX_DW, 0, 1, 8 * number, 0).pack(syscall.machine().byte_order)
    trial = _load(uapi.BPF_PROG_TYPE_RAW_TRACEPOINT, load)
    try:
        link.attach_raw_tp(tracepoint, lambda: trial).close()
    finally:
        trial.close()


def _load(prog_type: int, insns: bytes, attach_btf_id: int = 0, attach_type: int = 0) -> prog.Prog:
    """A program of `insns` that returns 0."""
    order = syscall.machine().byte_order
    end = Insn(MOV64, 0, 0, 0, 0).pack(order) + Insn(EXIT, 0, 0, 0, 0).pack(order)
    return prog.load("trial", prog_type, insns + end, "GPL", None, attach_btf_id, attach_type=attach_type)


def _is_refused_at_all(call: str) -> bool:
    """Is even the simplest map, or program, refused? Then EPERM speaks of a limit of this process, and not of what was
    tried."""
    try:
        if call == "bpf(BPF_MAP_CREATE)":
            _create("BPF_MAP_TYPE_ARRAY", 4, 4, 1)
        elif call == "bpf(BPF_PROG_LOAD)":
            _load(uapi.BPF_PROG_TYPE_SOCKET_FILTER, b"").close()
    except (ProgError, SyscallError):
        return True
    return False


def call(helper: str) -> None:
    """Loads a program that calls a helper with (stack, 8, 0), which suits all that are asked for. Raises ProgError."""
    order = syscall.machine().byte_order
    insns = (
        Insn(MOV64_X, 1, 10, 0, 0),
        Insn(ADD64, 1, 0, 0, -8),
        Insn(MOV64, 2, 0, 0, 8),
        Insn(MOV64, 3, 0, 0, 0),
        Insn(CALL, 0, 0, 0, uapi.BPF_FUNC[helper]),
    )
    # The one type of tracing program that no kernel compares its version for.
    _load(uapi.BPF_PROG_TYPE_TRACEPOINT, b"".join(insn.pack(order) for insn in insns)).close()


def _task_btf() -> None:
    """Loads a word of the current task without a helper.

    Linux kernel commit 3ca1032ab7ab ("bpf: Implement get_current_task_btf and RET_PTR_TO_BTF_ID") (in v5.11).
    It takes a kernel with BTF; the first word of a task is read as one on 64 bits alone.
    """
    order = syscall.machine().byte_order
    insns = Insn(CALL, 0, 0, 0, uapi.BPF_FUNC["bpf_get_current_task_btf"]), Insn(LDX_DW, 1, 0, 0, 0)
    _load(uapi.BPF_PROG_TYPE_TRACEPOINT, b"".join(insn.pack(order) for insn in insns)).close()


def _create(map_type: str, key_size: int, value_size: int, max_entries: int, named: bool = False) -> None:
    Map.create(image.Map("trial", map_type, key_size, value_size, max_entries), named).close()


def _ringbuf() -> None:
    """A map of 4.9 to 5.7 has no such type. On a real-time kernel, its lock must not be one that sleeps.

    Linux kernel commit 457f44363a88 ("bpf: Implement BPF ring buffer and verifier support for it") (in v5.8). Its lock
    became a raw one in v6.1, which has no mark of its own; another type of map came with the same release.
    """
    _create("BPF_MAP_TYPE_RINGBUF", 0, 0, 1 << 16)
    if kernel.realtime():
        try:
            _create("BPF_MAP_TYPE_USER_RINGBUF", 0, 0, 1 << 16)
        except SyscallError:
            raise SyscallError(
                "use a ring buffer", errno.EBUSY, "its lock may sleep on this real-time kernel"
            ) from None


def _live_btf() -> None:
    from . import kernel_btf

    kernel_btf.demand()


_TRIALS: Mapping[str, Callable[[Features], None]] = {
    "live-btf": lambda _: _live_btf(),
    **{name: lambda features, mechanism=name: features._attach(mechanism) for name in PLACES},  # type: ignore[misc]
    "ringbuf": lambda _: _ringbuf(),
    "probe_read_kernel": lambda _: call("bpf_probe_read_kernel"),
    "probe_read": lambda _: call("bpf_probe_read"),
    "task_btf": lambda _: _task_btf(),
    "cgroup_id": lambda _: call("bpf_get_current_cgroup_id"),
    "lru_hash": lambda _: _create("BPF_MAP_TYPE_LRU_HASH", 4, 4, 1),
    "obj_name": lambda _: _create("BPF_MAP_TYPE_ARRAY", 4, 4, 1, named=True),
}
