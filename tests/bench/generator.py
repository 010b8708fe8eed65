"""`make bench-gen`: what reading a kernel's types costs, in CPU time and memory, beside bpftool and pahole.

Each figure stands beside those of the other tools in the same run: times of machines differ, their ratios hardly.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

from sockpid import hooks
from sockpid.arch import of_machine
from sockpid.btf import Btf
from sockpid_gen import btf_finder, drgn_layout, extract, extraction
from sockpid_gen.source import LIVE, open_source
from sockpid_gen.wanted import wanted_fields

ROOT = Path(__file__).parents[2]
READER = """
import sys
sys.path.insert(0, "runtime")
from sockpid.btf import Btf
from sockpid.image import parse_image
from sockpid.arch import ARCHES
wanted = parse_image(open("bpf_bytecode/sockpid.bpfel.json", "rb").read(), "image").wanted(ARCHES[sys.argv[2]])
Btf(open(sys.argv[1], "rb").read()).extract(wanted, 8)
"""
DWARF_READER = "import sys; from sockpid_gen import extract; extract(sys.argv[1])"


class Cost(NamedTuple):
    """Of one process: CPU time in ms, peak memory in MiB."""

    cpu_ms: float
    memory_mib: float


def process(command: Sequence[str], runs: int) -> Cost:
    """The median of several runs. Raises CalledProcessError if the command fails."""
    costs: List[Cost] = []
    for _ in range(runs):
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
        costs.append(Cost((usage.ru_utime + usage.ru_stime) * 1000, usage.ru_maxrss / 1024))
    return Cost(statistics.median(c.cpu_ms for c in costs), max(c.memory_mib for c in costs))


def warm(call: Callable[[], object], runs: int) -> float:
    """CPU time of a call, in ms: the median of several."""
    times: List[float] = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times)


def btf(path: Path, program: Path, runs: int) -> Dict[str, Any]:
    """Our reader of BTF, warm and as a process, and bpftool and pahole for the same types."""
    machine = of_machine(os.uname().machine)
    wanted = wanted_fields(machine)
    data = path.read_bytes()
    structs = ",".join(sorted(name.split()[1] for name in wanted if name.startswith("struct ")))

    def with_drgn() -> None:
        blob = Btf(data)
        blob.extract(wanted, machine.pointer_size)
        drgn_layout.extract(btf_finder.program(blob, machine), wanted)

    def with_functions() -> None:
        blob = Btf(data)
        blob.extract(wanted, machine.pointer_size)
        blob.func_ids(hooks.functions())

    with tempfile.TemporaryDirectory() as directory:
        small = os.path.join(directory, "min.btf")
        bpftool = process(["bpftool", "gen", "min_core_btf", str(path), small, str(program)], runs)
    pahole = process(["pahole", "-C", structs, str(path)], runs)
    reader = process([sys.executable, "-I", "-S", "-c", READER, str(path), machine.name], runs)
    fields = warm(lambda: Btf(data).extract(wanted, machine.pointer_size), runs)
    tools = bpftool.cpu_ms + pahole.cpu_ms
    return {
        "types": len(Btf(data)),
        "reader, warm": {"cpu_ms": fields, "of bpftool + pahole": fields / tools},
        "reader, warm, with ids of functions": {"cpu_ms": warm(with_functions, runs)},
        "drgn's agreement on top": {"cpu_ms": warm(with_drgn, runs) - fields},
        "reader, whole process": {**reader._asdict(), "of bpftool + pahole": reader.cpu_ms / tools},
        "bpftool gen min_core_btf": bpftool._asdict(),
        "pahole -C": pahole._asdict(),
    }


def packages(paths: Sequence[Path], runs: int = 3) -> Dict[str, Any]:
    """From package to entry in one process, and what parts of that are: unpacking the kernel, and the file's SHA-256.

    A crawl saves the latter: apt has compared it.
    """

    def unpack(path: Path) -> None:
        with open_source(path, sha256=""):
            pass

    def read(path: Path) -> None:
        with open_source(path, sha256="") as kernel:
            extraction.extract(kernel, wanted_fields(kernel.arch))

    rows: Dict[str, Any] = {}
    for path in paths:
        entry = warm(functools.partial(read, path), runs)
        unpacked = warm(functools.partial(unpack, path), runs)
        summed = warm(functools.partial(extract, path), runs)
        rows[path.name] = {
            "cpu_ms": entry,
            "of it unpacking": unpacked / entry,
            "times with its SHA-256": summed / entry,
        }
    rows["mean"] = {"cpu_ms": statistics.mean(row["cpu_ms"] for row in rows.values())}
    return rows


def dwarf(package: Path) -> Dict[str, Any]:
    """drgn on the DWARF of a debug package's vmlinux, and pahole on the same file."""
    with open_source(package) as kernel:
        assert kernel.dwarf is not None
        structs = ",".join(name.split()[1] for name in wanted_fields(kernel.arch) if name.startswith("struct "))
        with tempfile.NamedTemporaryFile(suffix=".vmlinux") as file:
            kernel.dwarf.seek(0)
            while chunk := kernel.dwarf.read(1 << 20):
                file.write(chunk)
            file.flush()
            ours = process([sys.executable, "-c", DWARF_READER, file.name], 1)
            theirs = process(["pahole", "-F", "dwarf", "-C", structs, file.name], 1)
    return {
        "drgn": {
            **ours._asdict(),
            "of pahole": ours.cpu_ms / theirs.cpu_ms,
            "memory of pahole's": ours.memory_mib / theirs.memory_mib,
        },
        "pahole -F dwarf": theirs._asdict(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--btf", type=Path, default=LIVE)
    parser.add_argument("--package", type=Path, nargs="*", default=[], help="kernel packages")
    parser.add_argument("--debug", type=Path, help="a debug package, for DWARF")
    parser.add_argument("--object", type=Path, default=ROOT / "build/sockpid.bpfel.o", help="what clang made")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report: Dict[str, Any] = {f"BTF: {arguments.btf}": btf(arguments.btf, arguments.object, arguments.runs)}
    if arguments.package:
        report["packages"] = packages(arguments.package)
    if arguments.debug:
        report[f"DWARF: {arguments.debug.name}"] = dwarf(arguments.debug)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0
    for title, rows in report.items():
        print(f"\n{title}")
        for name, row in rows.items():
            cells = row if isinstance(row, dict) else {"": row}
            print(f"  {name:<38}" + "  ".join(_text(*cell) for cell in cells.items()))
    return 0


def _text(unit: str, value: float) -> str:
    if unit == "cpu_ms":
        return f"{value:8.1f} ms CPU"
    if unit == "memory_mib":
        return f"{value:7.0f} MiB"
    if unit.startswith(("of it", "times")):
        return f"{value:.2f} {unit}"
    return f"{value:.3g} x {unit}" if unit else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
