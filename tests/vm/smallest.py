"""python -m tests.vm smallest: the least memory in which a self-test of sockpid is right, for each architecture.

The guest has a kernel, busybox, the part of Python that sockpid imports, and sockpid. What was found goes beside the
results of the matrix, and into its document.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

from . import cell, initramfs
from .cell import Json
from .kernels import KERNELS, USUAL, Guest, Kernel
from .matrix import RESULTS, Results
from .qemu import GuestError

STEP = 8
LEAST, MOST = 32, 256
SELFTEST = "grep MemTotal /proc/meminfo; exec python3 -I -S /sockpid/runtime selftest --deny live-btf"


def main(argv: Sequence[str]) -> int:
    """0 if every architecture has a size in which the self-test is right."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm smallest", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--arch", action="append", choices=list(USUAL), help="only this architecture; may be repeated")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="results of the matrix")
    options = parser.parse_args(argv)
    results = Results(options.results)
    failed = False
    for arch in options.arch or USUAL:
        kernel = next(kernel for kernel in KERNELS.values() if kernel.arch == arch and kernel.series == "6.12")
        found = measure(kernel.deliverable())
        results.enter_smallest(arch, found)
        print(f"{arch}: {found}")
        failed |= "mib" not in found
    return 1 if failed else 0


def measure(kernel: Kernel) -> Json:
    """The least memory of a guest with `kernel`, in MiB, and why less does not do."""
    content, _ = cell.offsets(kernel)
    files = {f"/sockpid/offsets/{kernel.shard}": content}
    said: dict[int, str] = {}

    def right(mib: int) -> bool:
        try:
            result = Guest(kernel).run(["sh", "-c", SELFTEST], timeout=240, files=files, memory=mib, minimal=True)
        except GuestError as error:
            # QEMU itself tells of a machine that cannot have that much: ppc64el's has 256 MiB or a multiple.
            emulator = [
                line for line in error.console.splitlines() if line.startswith("qemu-system-") and "warn" not in line
            ]
            said[mib] = [str(error).splitlines()[0], *emulator][-1]
            return False
        said[mib] = " ".join((result.stdout if result.status == 0 else result.stderr).split())
        return result.status == 0

    userland = len(gzip.decompress(initramfs.base(kernel.arch, minimal=True).read_bytes()))
    userland += len(initramfs.checkout(kernel.arch, kernel.shard))
    found: Json = {
        "release": kernel.package.release,
        "userland_mib": round(userland / (1 << 20), 1),
        "measured": datetime.date.today().isoformat(),
    }
    least = bisect(right)
    if least is None:
        return {**found, "reason": said[MOST]}
    available = int(said[least].split()[1]) // 1024
    return {
        **found,
        "mib": least,
        "available_mib": available,
        "less": said.get(least - STEP) or "it did not come to its end",
    }


def bisect(right: Callable[[int], bool]) -> int | None:
    """The least size that is right, in steps, if more memory is never worse; None if not even the greatest is."""
    if not right(MOST):
        return None
    low, high = LEAST // STEP - 1, MOST // STEP  # low is taken not to do
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if right(middle * STEP) else (middle, high)
    return high * STEP
