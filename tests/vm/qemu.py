"""Boot a kernel in QEMU, without KVM, and bring back what one command in the guest did."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import selectors
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

BOOT_LIMIT = 300.0
REPORT_LIMIT = 15.0
PANIC_LIMIT = 5.0

# Half a second of self-tests and keys that an emulated boot need not pay for.
_SKIPPED = "initcall_blacklist=jent_mod_init,load_system_certificate_list"
_LINE = 76  # of base64
_STARTED, _RESULT, _END = b"--- command", b"--- result", b"--- end"


class Machine(NamedTuple):
    """How QEMU emulates one Debian architecture. package: what to install for it. turns: several CPUs run in turn.

    memory_step: its memory is a multiple of so many MiB.
    """

    emulator: str
    options: tuple[str, ...]
    console: str
    package: str
    turns: bool = True
    memory_step: int = 1


MACHINES: Mapping[str, Machine] = {
    # -cx16: QEMU 7.2 loses the flags of cmpxchg16b when an interrupt follows it. SLUB uses that instruction on every
    # allocation; one boot in three died. no_timer_check: the timer's self-test can fail on a loaded host.
    "amd64": Machine(
        "qemu-system-x86_64", ("-machine", "pc", "-cpu", "max,-cx16"), "ttyS0 no_timer_check", "qemu-system-x86"
    ),
    # A cortex-a57 has no pages of 16 KiB.
    "arm64": Machine("qemu-system-aarch64", ("-machine", "virt", "-cpu", "cortex-a76"), "ttyAMA0", "qemu-system-arm"),
    # In turn, the first of two CPUs waits for the second for ever.
    "armhf": Machine(
        "qemu-system-arm", ("-machine", "virt", "-cpu", "cortex-a15"), "ttyAMA0", "qemu-system-arm", turns=False
    ),
    # x-vof: an open firmware of QEMU's own, which starts the kernel at once.
    "ppc64el": Machine(
        *("qemu-system-ppc64", ("-machine", "pseries,x-vof=on", "-cpu", "power9"), "hvc0", "qemu-system-ppc"),
        memory_step=256,
    ),
    "riscv64": Machine("qemu-system-riscv64", ("-machine", "virt"), "ttyS0", "qemu-system-misc opensbi"),
    "s390x": Machine(
        "qemu-system-s390x", ("-machine", "s390-ccw-virtio", "-cpu", "max"), "ttysclp0", "qemu-system-misc"
    ),
}


class Result(NamedTuple):
    """What the command did. files: all that it left in /run/result, by name.

    seconds: the whole run, on this host. boot: of these, until the command began.
    """

    status: int
    stdout: str
    stderr: str
    console: str
    seconds: float
    files: Mapping[str, bytes]
    boot: float = 0


class GuestError(Exception):
    """A guest that gave no result. `console` is all that its kernel and QEMU said."""

    def __init__(self, message: str, console: str) -> None:
        super().__init__("\n".join([message, *console.splitlines()[-30:]]))
        self.console = console


class GuestPanic(GuestError):
    """The guest's kernel panicked or oopsed."""


class GuestTimeout(GuestError):
    """The command, or the whole guest, took too long. stdout and stderr: as far as the command came; None if the
    guest did not say."""

    def __init__(self, message: str, console: str, stdout: str | None = None, stderr: str | None = None) -> None:
        super().__init__(message, console)
        self.stdout = stdout
        self.stderr = stderr


def boot(
    kernel: Path,
    initramfs: bytes,
    arch: str,
    *,
    timeout: float,
    memory: int = 256,
    smp: int = 1,
    icount: bool = False,
    append: str = "",
) -> Result:
    """Boot `kernel` on `initramfs` and wait for the command in it, which may take `timeout` seconds.

    memory: MiB, rounded up to what the machine can have. smp: CPUs; QEMU runs them in turn, for side by side those of
    an x86 now and then run into an int3 that text_poke has already taken back: a panic. icount: an instruction takes a
    nanosecond, so time in the guest does not depend on the host's load; an x86 guest then takes three times as long to
    boot. append: words for the kernel's command line.
    """
    machine = MACHINES[arch]
    memory = -(-memory // machine.memory_step) * machine.memory_step
    threads = "single" if machine.turns or smp == 1 or icount else "multi"
    words = f"console={machine.console} quiet panic=-1 oops=panic {_SKIPPED} sockpid.timeout={timeout:g} {append}"
    with tempfile.NamedTemporaryFile(prefix="initramfs.") as file:
        file.write(initramfs)
        file.flush()
        command = [machine.emulator, *machine.options, "-accel", f"tcg,thread={threads}"]
        command += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]
        command += ["-m", f"{memory}M", "-smp", str(smp), "-kernel", str(kernel), "-initrd", file.name]
        command += ["-append", words.strip()]
        if icount:
            command += ["-icount", "shift=0,sleep=off"]
        started = time.monotonic()
        console, overdue, up = _converse(command, timeout)
    return _result(console, time.monotonic() - started, overdue)._replace(boot=up - started)


_running: set[subprocess.Popen[bytes]] = set()


def kill_all() -> None:
    """Ends every guest that runs now; their boot() raises GuestError."""
    for process in list(_running):
        process.kill()


def _converse(command: list[str], timeout: float) -> tuple[bytes, str, float]:
    """The console up to the result, the end of the emulator or a time limit, and which limit that was ("": none).
    Also when the command began."""
    console = b""
    up = 0.0
    with (
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout
        _running.add(process)
        selector.register(process.stdout, selectors.EVENT_READ)
        limits = [(time.monotonic() + BOOT_LIMIT, f"the guest did not come up within {BOOT_LIMIT:g} s")]
        try:
            while True:
                deadline, overdue = limits[-1]
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return console, overdue, up
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                console += chunk
                if not chunk or _END in console:
                    return console, "", up
                if len(limits) == 1 and _STARTED in console:
                    up = time.monotonic()
                    wait = timeout + REPORT_LIMIT
                    limits.append((time.monotonic() + wait, f"the guest gave no result within {wait:g} s"))
                if limits[-1][1] and b"Kernel panic - not syncing" in console:
                    limits.append((time.monotonic() + PANIC_LIMIT, ""))
        finally:
            process.kill()
            _running.discard(process)


def _result(raw: bytes, seconds: float, overdue: str) -> Result:
    console = raw.decode(errors="replace").replace("\r\n", "\n")
    text, found, rest = console.partition(_RESULT.decode())
    encoded, complete, _ = rest.partition(_END.decode())
    panic = re.search(r"Kernel panic - not syncing.*", text)
    if panic:
        raise GuestPanic(panic[0], console)
    if overdue:
        raise GuestTimeout(overdue, console)
    if not (found and complete):
        raise GuestError("QEMU ended before the guest gave a result", console)
    try:
        archive = gzip.decompress(base64.b64decode(_whole(encoded)))  # all of it: its checksum comes last
        with tarfile.open(fileobj=io.BytesIO(archive)) as members:
            files = {m.name.removeprefix("./"): f.read() for m in members if (f := members.extractfile(m))}
        stdout, stderr = (files.pop(name).decode(errors="replace") for name in ("stdout", "stderr"))
        status = int(files.pop("status"))
    except (ValueError, KeyError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise GuestError(f"the guest's result is incomplete (more memory needed?): {error!r}", console) from error
    if "timeout" in files:
        limit = files["timeout"].decode().strip()
        raise GuestTimeout(f"the command was killed after {limit} s", text, stdout, stderr)
    return Result(status, stdout, stderr, text, seconds, files)


def _whole(encoded: str) -> str:
    """Base64 as it was before the console lost bytes of it: where lines have numbers, they were sent twice."""
    numbered = re.findall(r"^(\d{7}) ([\w+/]{1,76}={0,2})$", encoded, re.MULTILINE)
    if not numbered:
        return encoded
    last = max(number for number, _ in numbered)
    lines: dict[str, str] = {}
    for number, line in numbered:
        if len(line) == _LINE or (number == last and len(line) > len(lines.get(number, ""))):
            lines[number] = line
    return "".join(lines[number] for number in sorted(lines))
