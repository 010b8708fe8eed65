"""python -m tests.vm matrix: every kernel of the mirrors, every way of attaching, in parallel; what is done stays done.

The results are in docs/support-matrix.json, one entry a kernel, and docs/support-matrix.md is made of them. A kernel is
booted for the ways whose results are missing, or whose inputs have changed since: the kernel's package, the bytecode
image, the runtime, the lab's own scripts. Consoles of what failed stay in build/lab/.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import fnmatch
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import cache, catalogue, cell, qemu, report
from .cell import MECHANISMS, STANDARD, Json, Way
from .kernels import USUAL, Kernel

RESULTS = cache.CHECKOUT / "docs" / "support-matrix.json"

EXAMPLES = """\
examples:
  python -m tests.vm matrix                                    all kernels, all mechanisms: about an hour on two cores
  python -m tests.vm matrix --list                             which kernels those are
  python -m tests.vm matrix --arch s390x --attach kprobe-pmu   one architecture, one mechanism
  python -m tests.vm matrix --series 6.1 --series 5.10 --flavour 'rt-*'
  python -m tests.vm matrix --deny ringbuf,probe_read_kernel   the best mechanism, without these
  python -m tests.vm matrix --failed                           once more what failed"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.vm matrix",
        description=__doc__.partition("\n\n")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--arch", action="append", choices=list(USUAL), help="only this architecture; may be repeated")
    top.add_argument("--series", action="append", metavar="X.Y", help="only this series; may be repeated")
    top.add_argument("--flavour", action="append", metavar="PATTERN", help="only flavours that match: 'cloud-*'")
    top.add_argument("--attach", action="append", choices=MECHANISMS, help="only this mechanism; may be repeated")
    top.add_argument("--deny", action="append", metavar="NAME,...", help="without these capabilities; may be repeated")
    top.add_argument("--again", action="store_true", help="also what is done")
    top.add_argument("--failed", action="store_true", help="what failed, even if nothing has changed since")
    top.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="guests at a time")
    top.add_argument("--memory", type=int, metavar="MIB", help="of a guest (default: 256; more with pages of 64 KiB)")
    top.add_argument("--list", action="store_true", help="name the kernels, boot none")
    top.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="results; the document lies beside")
    return top


def main(argv: Sequence[str]) -> int:
    """0 if nothing failed."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(format="tests.vm: %(message)s", level=logging.WARNING)
    kernels = [
        kernel
        for kernel in catalogue.discover(options.arch or tuple(USUAL))
        if (not options.series or kernel.series in options.series)
        and (not options.flavour or any(fnmatch.fnmatch(kernel.flavour, pattern) for pattern in options.flavour))
    ]
    if options.list:
        for kernel in kernels:
            print(f"{kernel.name:28} {kernel.suite:18} {kernel.package.name} {kernel.package.version}")
        print(f"{len(kernels)} kernels", file=sys.stderr)
        return 0
    ways = list(chosen_ways(options.attach, options.deny))
    results = Results(options.results)
    todo = {
        kernel: missing
        for kernel in sorted(kernels, key=lambda kernel: results.worth(kernel, ways))
        if (missing := results.missing(kernel, ways, options.again, options.failed))
    }
    for kernel in kernels:
        results.settle(kernel)
    try:
        _run_all(todo, results, options.jobs, options.memory)
    except KeyboardInterrupt:
        print(f"interrupted; {results.path} has what was done", file=sys.stderr)
        return 130
    failed = [
        f"{kernel.name} {way.name}: {found['reason']}"
        for kernel in kernels
        for way in ways
        if (found := results.of(kernel, way)) and found["verdict"] == "failed"
    ]
    print(*failed, sep="\n")
    print(f"{len(kernels)} kernels, {len(todo)} booted, {len(failed)} failed; {results.document}", file=sys.stderr)
    return 1 if failed else 0


def chosen_ways(attach: Sequence[str] | None, deny: Sequence[str] | None) -> Iterator[Way]:
    """The standard ways, or the product of the mechanisms and denials asked for."""
    if not attach and not deny:
        yield from STANDARD
        return
    for mechanism in attach or [""]:
        for names in deny or [""]:
            yield Way(mechanism, tuple(sorted(filter(None, names.split(",")))))


class Results:
    """The result file, written anew after each kernel, and the document made of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = path.with_suffix(".md")
        self._lock = threading.Lock()
        self._content: Json = json.loads(path.read_bytes()) if path.exists() else {"schema": 1, "kernels": {}}
        self._kernels: Json = self._content["kernels"]

    def of(self, kernel: Kernel, way: Way) -> Json | None:
        found: Json | None = self._kernels.get(kernel.name, {}).get("ways", {}).get(way.name)
        return found

    def worth(self, kernel: Kernel, ways: Sequence[Way]) -> int:
        """What has no result at all comes first, then what failed."""
        found = [self.of(kernel, way) for way in ways]
        return 0 if None in found else 1 if any(f and f["verdict"] == "failed" for f in found) else 2

    def missing(self, kernel: Kernel, ways: Sequence[Way], again: bool, failed: bool) -> list[Way]:
        """The ways of `kernel` that have no result, or one of other inputs."""
        inputs = cell.inputs(kernel)

        def done(way: Way) -> bool:
            found = self.of(kernel, way)
            return found is not None and found["inputs"] == inputs and not (failed and found["verdict"] == "failed")

        return [way for way in ways if again or not done(way)]

    def enter(self, kernel: Kernel, document: Json) -> None:
        inputs, today = cell.inputs(kernel), datetime.date.today().isoformat()
        for found in document["ways"].values():
            found.update(inputs=inputs, measured=today)
        with self._lock:
            before = self._kernels.get(kernel.name, {}).get("ways", {})
            self._kernels[kernel.name] = {**document, "ways": {**before, **document["ways"]}}
            self._write()

    def settle(self, kernel: Kernel) -> None:
        """Says that the table of a result is published, if it has become so since."""
        document = self._kernels.get(kernel.name, {})
        if "table" in document and cell.committed_since(kernel, document["table"]):
            with self._lock:
                document["table"]["origin"] = "committed"
                self._write()

    def enter_smallest(self, arch: str, found: Json) -> None:
        """The least memory of a guest of `arch`."""
        with self._lock:
            self._content.setdefault("smallest", {})[arch] = found
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cache.write(self.path, (json.dumps(self._content, indent=1, sort_keys=True) + "\n").encode())
        cache.write(self.document, report.document(self._kernels, self._content.get("smallest", {})).encode())


def _run_all(todo: dict[Kernel, list[Way]], results: Results, jobs: int, memory: int | None) -> None:
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        total = progress.add_task("kernels", total=len(todo))

        def work(kernel: Kernel, ways: list[Way]) -> tuple[Kernel, Json]:
            task = progress.add_task(kernel.name, total=None)
            try:
                return kernel, cell.run(kernel, ways, memory=memory)
            finally:
                progress.remove_task(task)

        running = [pool.submit(work, *item) for item in todo.items()]
        try:
            for done in concurrent.futures.as_completed(running):
                kernel, document = done.result()
                results.enter(kernel, document)
                progress.advance(total)
                said = ", ".join(f"{name} {found['verdict']}" for name, found in document["ways"].items())
                progress.console.print(
                    f"{kernel.name} ({document.get('seconds', '-')} s): {said}", highlight=False, soft_wrap=True
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            qemu.kill_all()
            raise
