"""The lab's command line: one command on one kernel, or the matrix of all kernels (python -m tests.vm matrix)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import catalogue, image, packages, qemu
from .kernels import KERNELS, Guest

EXAMPLES = """\
examples:
  python -m tests.vm --list
  python -m tests.vm --kernel 6.1/amd64 -- uname -a
  python -m tests.vm --kernel 6.12/s390x -- python3 -I -S /sockpid/runtime selftest --deny live-btf
  python -m tests.vm matrix --help                      every kernel there is, every mechanism
  python -m tests.vm smallest                           the least memory for each architecture"""


def main() -> int:
    if sys.argv[1:2] == ["matrix"]:
        from . import matrix

        return matrix.main(sys.argv[2:])
    if sys.argv[1:2] == ["smallest"]:
        from . import smallest

        return smallest.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m tests.vm",
        description="Run a command on a kernel of the lab.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="name the kernels and the packages they come from")
    parser.add_argument(
        "--kernel", action="append", metavar="NAME", help="of --list, or of matrix --list, or all; may be repeated"
    )
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--memory", type=int, metavar="MIB")
    parser.add_argument("--smp", type=int, default=1, metavar="CPUS")
    parser.add_argument("--icount", action="store_true", help="time in the guest counts instructions")
    parser.add_argument("--btf", action="store_true", help="leave /sys/kernel/btf visible")
    parser.add_argument("--append", default="", metavar="WORDS", help="more of the kernel's command line")
    parser.add_argument("--console", action="store_true", help="print the kernel's console as well")
    parser.add_argument("--file", action="append", default=[], metavar="GUEST=HOST", help="put a file into the guest")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    options = parser.parse_args()
    names = options.kernel or []
    try:
        if options.list:
            for name, kernel in KERNELS.items():
                offered = f"{kernel.package.name} {kernel.package.version}" if kernel.offered else "no longer"
                print(f"{name:12} {kernel.suite:17} {offered}")
            return 0
        if not (names and options.command):
            parser.error("--kernel and a command are needed, or --list")
        files = {guest: Path(host).read_bytes() for guest, _, host in (f.partition("=") for f in options.file)}
        statuses = [_run(Guest(catalogue.find(n)), options, files) for n in (KERNELS if "all" in names else names)]
    except (packages.PackageError, image.ImageError, OSError) as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return 1
    return max(statuses)


def _run(guest: Guest, options: argparse.Namespace, files: dict[str, bytes]) -> int:
    if missing := guest.kernel.missing():
        raise packages.PackageError(missing)
    try:
        result = guest.run(
            options.command,
            timeout=options.timeout,
            files=files,
            memory=options.memory,
            smp=options.smp,
            icount=options.icount,
            btf=options.btf,
            append=options.append,
        )
    except qemu.GuestError as error:
        if isinstance(error, qemu.GuestTimeout) and error.stdout is not None:
            print(error.stdout, error.stderr, sep="\n")
        print(f"tests.vm: {guest.kernel.name}: {error}", file=sys.stderr)
        return 1
    if options.console:
        print(result.console, file=sys.stderr)
    print(result.stdout, end="")
    print(result.stderr, end="", file=sys.stderr)
    release = guest.kernel.package.release
    print(f"[{guest.kernel.name} {release}: status {result.status}, {result.seconds:.1f} s]", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
