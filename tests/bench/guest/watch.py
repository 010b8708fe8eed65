"""Start-up of one tool: when and at what cost it is attached, and what it takes then.

`watch(command)` starts it, looks every half millisecond at what is attached, and takes the last change as the
moment. The tool runs in a control group of its own, where there is cgroup v2, so that what the kernel allocates for it
is told apart.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from sockpid import syscall

if TYPE_CHECKING:
    from tests.bench.guest.bpf_objects import Attachments
    from tests.bench.guest.usage import cpu_of, high_water, rollup
else:  # in the guest
    from bpf_objects import Attachments
    from usage import cpu_of, high_water, rollup

CGROUP = "/sys/fs/cgroup"
INTERVAL = 0.0005
QUIET = 2.0  # seconds without a change, after which nothing more is expected
LIMIT = 120.0
MIB = 1 << 20


def watch(command: Sequence[str], perf: bool = False, expect: bool = True) -> Dict[str, Any]:
    """Runs a tool until it has been attached for QUIET seconds, and ends it by SIGINT.

    wall_s, cpu_s, syscalls: from exec until attached (of a command that attaches nothing: until its end). ready_s:
    when its first line came, None: none came. peak_mib: resident set at its greatest. private_mib, kernel_kib: once it
    is quiet.
    """
    group = os.path.join(CGROUP, "tool") if os.path.exists(os.path.join(CGROUP, "cgroup.controllers")) else None
    if group is not None:
        os.makedirs(group, exist_ok=True)
    attachments = Attachments(perf)
    output_end, input_end = os.pipe()
    os.set_blocking(output_end, False)

    def join() -> None:
        if group is not None:
            with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")

    syscalls = Syscalls()
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=input_end, stderr=input_end, preexec_fn=join)  # noqa: PLW1509
    os.close(input_end)
    found: Dict[str, Any] = {"ready_s": None, "attached": 0}
    peak, output = 0, b""
    last = started
    while process.poll() is None:
        now = time.monotonic()
        cpu = cpu_of(process.pid)
        count = attachments.count(process.pid)
        if count > found["attached"]:
            last = now
            found.update(attached=count, wall_s=now - started, cpu_s=cpu, syscalls=syscalls.count())
        if not output:
            output = read(output_end)
            if output:
                found.update(ready_s=now - started, ready_cpu_s=cpu)
        if now - (last if count else started) > (QUIET if count else LIMIT):
            break
        if count and now - last > 0.1:
            time.sleep(0.05)
            peak = max(peak, rollup(process.pid)[0])
        else:
            time.sleep(INTERVAL)
    if process.returncode is None:
        rss, private = rollup(process.pid)
        found.update(
            peak_mib=max(peak, rss, high_water(process.pid)) / MIB,
            private_mib=private / MIB,
            kernel_kib=None if group is None else kernel_memory(group) / 1024,
            cpu_quiet_s=cpu_of(process.pid),
        )
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    status = process.wait()
    syscalls.close()
    output += read(output_end)
    os.close(output_end)
    if expect and not found["attached"]:
        raise SystemExit(f"{' '.join(command)}: status {status}, nothing was attached: {output.decode()}")
    return found


class Syscalls:
    """Counts the system calls of processes that are started from here on and execute a program."""

    EVENT = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id"
    # struct perf_event_attr: PERF_TYPE_TRACEPOINT; of its flags disabled, inherit and enable_on_exec
    TRACEPOINT, FLAGS = 2, 1 << 0 | 1 << 1 | 1 << 12

    def __init__(self) -> None:
        self._fd = -1
        if os.path.exists(self.EVENT):
            with open(self.EVENT, encoding="ascii") as file:
                number = int(file.read())
            attr = struct.pack("=IIQQQQQ16x", self.TRACEPOINT, 64, number, 0, 0, 0, self.FLAGS)
            self._fd = syscall.perf_event_open(bytearray(attr), 0, -1, 0)

    def count(self) -> Optional[int]:
        return None if self._fd < 0 else int(struct.unpack("=Q", os.read(self._fd, 8))[0])

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def floor(command: Sequence[str]) -> Dict[str, Any]:
    """A command that ends by itself: wall and CPU time, and its peak as its parent learns it."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""


def kernel_memory(group: str) -> int:
    """Bytes that the kernel allocated for a control group: maps, programs, buffers, page tables, stacks."""
    with open(os.path.join(group, "memory.stat"), encoding="ascii") as file:
        for line in file:
            if line.startswith("kernel "):
                return int(line.split()[1])
    return 0
