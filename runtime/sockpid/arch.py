"""What differs between architectures, as plain data. There is no default: an unknown machine is an error."""

from __future__ import annotations

from .errors import UnsupportedArchError
from .namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Tuple


class Arch(NamedTuple):
    """One architecture.

    name: directory under offsets/, as `uname -m` spells it ("arm" for every 32-bit ARM).
    byte_order: "little" or "big". pointer_size: bytes, also of one register in pt_regs.
    e_machine: ELF machine numbers (elf.h, EM_*); e_class follows from pointer_size.
    args: members of `struct pt_regs` that hold the first C arguments of a function on entry, in order.
    bpf, perf_event_open, setns, capset, prctl, unshare, kcmp, splice: system call numbers (arch/*/entry/syscalls,
    include/uapi/asm-generic/unistd.h).
    """

    name: str
    byte_order: str
    pointer_size: int
    e_machine: int
    args: Tuple[str, ...]
    bpf: int
    perf_event_open: int
    setns: int
    capset: int
    prctl: int
    unshare: int
    kcmp: int
    splice: int


ARCHES: Dict[str, Arch] = {
    a.name: a
    for a in (
        Arch("x86_64", "little", 8, 62, ("di", "si", "dx", "cx"), 321, 298, 308, 126, 157, 272, 312, 275),
        Arch(
            "aarch64",
            "little",
            8,
            183,
            ("regs[0]", "regs[1]", "regs[2]", "regs[3]"),
            280,
            241,
            268,
            91,
            167,
            97,
            272,
            76,
        ),
        Arch("riscv64", "little", 8, 243, ("a0", "a1", "a2", "a3"), 280, 241, 268, 91, 167, 97, 272, 76),
        Arch(
            "ppc64le", "little", 8, 21, ("gpr[3]", "gpr[4]", "gpr[5]", "gpr[6]"), 361, 319, 350, 184, 171, 282, 354, 283
        ),
        Arch(
            "s390x", "big", 8, 22, ("gprs[2]", "gprs[3]", "gprs[4]", "gprs[5]"), 351, 331, 339, 185, 172, 303, 343, 306
        ),
        Arch(
            "arm",
            "little",
            4,
            40,
            ("uregs[0]", "uregs[1]", "uregs[2]", "uregs[3]"),
            386,
            364,
            375,
            185,
            172,
            337,
            378,
            340,
        ),
    )
}


# Of struct pt_regs, which is part of the kernel's user space interface (ptrace, signal frames) and in this the same in
# every kernel: offset of the first argument register, and how much farther each further one is.
# arch/*/include/uapi/asm/ptrace.h, arch/riscv/include/asm/ptrace.h, arch/s390/include/asm/ptrace.h
_REGISTERS: Dict[str, Tuple[int, int]] = {
    "x86_64": (112, -8),
    "aarch64": (0, 8),
    "riscv64": (80, 8),
    "ppc64le": (24, 8),
    "s390x": (40, 8),
    "arm": (0, 4),
}


def register(arch: Arch, number: int) -> int:
    """Offset in struct pt_regs of the register that holds an argument, by its number from 0."""
    first, step = _REGISTERS[arch.name]
    return first + number * step


def of_machine(machine: str) -> Arch:
    """The architecture that `uname -m` calls `machine`. Raises UnsupportedArchError naming it."""
    name = "arm" if machine.startswith(("armv6", "armv7")) else machine
    try:
        return ARCHES[name]
    except KeyError:
        raise UnsupportedArchError(
            f"architecture {machine!r} is not supported (known: {', '.join(sorted(ARCHES))})"
        ) from None


def of_elf(e_machine: int, pointer_size: int, byte_order: str) -> Arch:
    """The architecture of an ELF header. Raises UnsupportedArchError naming all three values."""
    for arch in ARCHES.values():
        if (arch.e_machine, arch.pointer_size, arch.byte_order) == (e_machine, pointer_size, byte_order):
            return arch
    raise UnsupportedArchError(
        f"ELF machine {e_machine}, {pointer_size * 8}-bit, {byte_order}-endian is not a supported architecture"
    )
