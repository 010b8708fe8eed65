"""The kernels of the lab, and guests that run them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import image, initramfs, packages, qemu, tables

# uname -m of each Debian architecture, but "arm" for 32-bit ARM.
MACHINE = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "arm",
    "ppc64el": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

# Of each architecture the flavour that boots fastest.
USUAL = {
    "amd64": "cloud-amd64",
    "arm64": "cloud-arm64",
    "armhf": "armmp",
    "ppc64el": "powerpc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}


@dataclass(frozen=True)
class Kernel:
    """A series of kernels as one Debian suite packages it. Which one exactly is the archive's choice of the day.

    passed_over: packages that the archive lists, but cannot deliver.
    """

    suite: str
    arch: str
    flavour: str
    series: str
    passed_over: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What --kernel and test names call it: "6.1/amd64"; other flavours than the usual one are spelled out."""
        return f"{self.series}/{self.arch}" + ("" if self.flavour == USUAL[self.arch] else f"/{self.flavour}")

    @property
    def number(self) -> tuple[int, ...]:
        """The series as numbers, which can be compared."""
        return tuple(map(int, self.series.split(".")))

    @property
    def shard(self) -> str:
        """The file of the table that its entry belongs into, below offsets/."""
        return f"{MACHINE[self.arch]}/{self.series}.json"

    @property
    def memory(self) -> int:
        """MiB that a guest gets if nothing else is said. A file takes at least a page, be it of 64 KiB, as Debian's
        usual kernels for ppc64el had it before there were two flavours."""
        before = self.arch == "ppc64el" and self.number < (6, 12)
        return 1024 if before or self.flavour.endswith("-64k") else 256

    @functools.cached_property
    def package(self) -> packages.KernelPackage:
        return packages.find_kernel(self.suite, self.arch, self.flavour, self.series, self.passed_over)

    @property
    def offered(self) -> bool:
        """Whether the suite still has the series. Raises PackageError if its index cannot be had."""
        found = {(builds[0].series, builds[0].flavour) for builds in packages.kernels(self.suite, self.arch)}
        return (self.series, self.flavour) in found

    def deliverable(self) -> Kernel:
        """This kernel, or its newest earlier build that the archive delivers: an index can be ahead of its mirror.

        Raises PackageError of the last build that was tried.
        """
        try:
            self.deb()
        except packages.PackageError as error:
            earlier = replace(self, passed_over=(*self.passed_over, self.package.name))
            if "404" not in str(error) or len(earlier.passed_over) > 9:
                raise
            return earlier.deliverable()
        return self

    def deb(self) -> Path:
        return packages.fetch(self.package.name, self.suite, self.arch)

    def vmlinuz(self) -> Path:
        return image.extract(self.deb(), self.package.release)

    def missing(self) -> str:
        """What this machine lacks to run it, or ""."""
        machine = qemu.MACHINES[self.arch]
        if shutil.which(machine.emulator) is None:
            return f"{machine.emulator} is not installed (package {machine.package})"
        return ""


KERNELS: Mapping[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("bullseye", "amd64", "cloud-amd64", "5.10"),
        Kernel("bookworm", "amd64", "cloud-amd64", "6.1"),
        Kernel("trixie", "amd64", "cloud-amd64", "6.12"),
        Kernel("trixie-backports", "amd64", "cloud-amd64", "6.18"),
        Kernel("sid", "amd64", "cloud-amd64", "7.2"),
        Kernel("trixie", "arm64", "cloud-arm64", "6.12"),
        Kernel("bookworm", "arm64", "cloud-arm64", "6.1"),
        Kernel("trixie", "armhf", "armmp", "6.12"),
        Kernel("trixie", "ppc64el", "powerpc64le", "6.12"),
        Kernel("trixie", "riscv64", "riscv64", "6.12"),
        Kernel("trixie", "s390x", "s390x", "6.12"),
    )
}

# Booted by the tests that name them, and by no others.
FURTHER: Mapping[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("bookworm", "armhf", "armmp", "6.1"),
        Kernel("bookworm", "armhf", "rt-armmp", "6.1"),
        Kernel("bookworm", "ppc64el", "powerpc64le", "6.1"),
        Kernel("bookworm", "amd64", "rt-amd64", "6.1"),
        Kernel("trixie", "amd64", "rt-amd64", "6.12"),
        Kernel("trixie", "arm64", "rt-arm64", "6.12"),
    )
}


@dataclass(frozen=True)
class Guest:
    """A machine with `kernel` and nothing but busybox, Python and sockpid (in /sockpid). Each run boots it anew.

    The table there is the published one, which knows the kernel: if need be, an entry made from its package is added.
    """

    kernel: Kernel

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60,
        files: Mapping[str, bytes] | None = None,
        memory: int | None = None,
        smp: int = 1,
        icount: bool = False,
        btf: bool = False,
        append: str = "",
        minimal: bool = False,
        more: bytes = b"",
    ) -> qemu.Result:
        """Run `command` as root and return what it did; a non-zero status is no error.

        files: more files, or other contents, by path in the guest. memory: MiB. smp, icount: see qemu.boot. btf: leave
        /sys/kernel/btf visible. append: words for the kernel's command line. minimal: a guest with no more than sockpid
        needs (see initramfs.base), and of the table only the kernel's series. more: another archive to unpack (newc).
        What the command writes below /run/result comes back in Result.files. Raises GuestTimeout when the command takes
        longer than `timeout` seconds, GuestPanic when the kernel does not survive.
        """
        arch = self.kernel.arch
        table = self.kernel.shard if minimal else f"{MACHINE[arch]}/*.json"
        archives = [
            initramfs.base(arch, minimal=minimal).read_bytes(),
            initramfs.checkout(arch, table),
            more,
            initramfs.order(command, {**tables.of_guest(self.kernel), **(files or {})}),
        ]
        return qemu.boot(
            self.kernel.vmlinuz(),
            b"".join(archives),
            arch,
            timeout=timeout,
            memory=memory or self.kernel.memory,
            smp=smp,
            icount=icount,
            append=f"{append} sockpid.btf=visible" if btf else append,
        )
