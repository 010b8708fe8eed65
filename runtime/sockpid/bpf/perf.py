"""perf events as carriers of BPF programs, the kprobe PMU and tracepoints by id, and of their output."""

from __future__ import annotations

import fcntl
import struct

from sockpid import syscall, uapi
from sockpid.errors import SyscallError

KPROBE_PMU = "/sys/bus/event_source/devices/kprobe/type"


def pmu_type(path: str) -> int:
    """The dynamic type of a perf PMU. Raises SyscallError naming the file where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError as error:
        raise SyscallError(f"open {path}", error.errno or 0) from None


def open_kprobe(function: str) -> int:
    """A perf event on entry of a kernel function.

    Linux kernel commit e12f03d7031a ("perf/core: Implement the 'perf_kprobe' PMU") (in v4.17)
    """
    name = bytearray(function.encode() + b"\0")
    try:
        return _open(pmu_type(KPROBE_PMU), 0, syscall.address(name))
    finally:
        del name[:]  # not before: the kernel reads it at its address


def open_tracepoint(tracepoint_id: int) -> int:
    """A perf event on the tracepoint with that id in tracefs."""
    return _open(uapi.PERF_TYPE_TRACEPOINT, tracepoint_id)


def open_bpf_output(cpu: int) -> int:
    """A perf event that takes what programs on one CPU write with bpf_perf_event_output().

    Linux kernel commit a43eec304259 ("bpf: introduce bpf_perf_event_output() helper") (in v4.4)
    """
    return _open(uapi.PERF_TYPE_SOFTWARE, uapi.PERF_COUNT_SW_BPF_OUTPUT, sample_type=uapi.PERF_SAMPLE_RAW, cpu=cpu)


def _open(event_type: int, config: int, config1: int = 0, sample_type: int = 0, cpu: int = 0) -> int:
    """On one CPU: the program of a probe runs on all of them nevertheless."""
    # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags, wakeup_events,
    # bp_type, config1, config2
    attr = struct.pack(
        "=IIQQQQQIIQQ", event_type, uapi.PERF_ATTR_SIZE_VER5, config, 1, sample_type, 0, 0, 1, 0, config1, 0
    )
    buffer = bytearray(attr.ljust(uapi.PERF_ATTR_SIZE_VER5, b"\0"))
    return syscall.perf_event_open(buffer, -1, cpu, uapi.PERF_FLAG_FD_CLOEXEC)


def set_bpf(fd: int, prog_fd: int) -> None:
    """Hangs a program on a perf event and switches the event on."""
    powerpc = syscall.machine().name == "ppc64le"
    # arch/powerpc/include/uapi/asm/ioctl.h: three direction bits, and _IOC_NONE is 1
    enable = 0x20002400 if powerpc else uapi.PERF_EVENT_IOC_ENABLE
    set_prog = 0x80042408 if powerpc else uapi.PERF_EVENT_IOC_SET_BPF
    for name, request, argument in (
        ("ioctl(PERF_EVENT_IOC_SET_BPF)", set_prog, prog_fd),
        ("ioctl(PERF_EVENT_IOC_ENABLE)", enable, 0),
    ):
        try:
            fcntl.ioctl(fd, request, argument)
        except OSError as error:
            raise SyscallError(name, error.errno or 0) from None
