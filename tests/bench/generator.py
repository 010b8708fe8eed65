"""`make bench-gen`: what reading a kernel's types costs, in CPU time and memory, beside bpftool and pahole.

Each figure stands beside those of the other tools in the same run, measured in turn with them: times of machines
differ, their ratios hardly. Writes docs/bench/gen.json, where what was not measured this time stays as it was, and the
figures in docs/bench-gen.md.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import drgn

from sockpid.arch import of_machine
from sockpid.btf.btf import Btf
from sockpid.image import hooks
from sockpid_gen.btf import finder
from sockpid_gen.cli.cli import ENVIRONMENT
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.kernel.source import LIVE, open_source

from . import generator_report, mirrors

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS_PYTHON = Path("/usr/bin/python3")
RESULT = ROOT / "docs/bench/gen.json"
READER = """
import sys
sys.path.insert(0, "runtime")
from sockpid.host import mapped
from sockpid.btf.btf import Btf
from sockpid.image.image import parse_image
from sockpid.arch import ARCHES
wanted = parse_image(open("bpf_bytecode/sockpid.bpfel.json", "rb").read(), "image").wanted(ARCHES[sys.argv[2]])
Btf(mapped.content(open(sys.argv[1], "rb"))).extract(wanted, 8)
"""
DWARF_READER = """
import sys
from pathlib import Path
from sockpid_gen.extraction import extraction
from sockpid_gen.kernel.source import open_source
from sockpid_gen.extraction.wanted import wanted_fields
with open_source(Path(sys.argv[1]), sha256=sys.argv[2] or None) as kernel:
    extraction.extract(kernel, wanted_fields(kernel.arch))
"""


LAUNCHER = """
import os, sys
nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=nothing)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""
"""Starts a command and prints what it took. Between us and it, since its peak memory counts that of its parent."""


class Cost(NamedTuple):
    """Of one process: CPU time in ms, peak memory in MiB."""

    cpu_ms: float
    memory_mib: float


def process(command: Sequence[str]) -> Cost:
    """Of one run, in the generator's environment. Raises CalledProcessError if the command fails."""
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    environment = {**ENVIRONMENT, **os.environ}
    output = subprocess.run(launch, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    status, seconds, kib = output.split()
    if status != "0":
        raise subprocess.CalledProcessError(int(status), command)
    return Cost(float(seconds) * 1000, int(kib) / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    """The median CPU time, and the highest peak."""
    return Cost(statistics.median(c.cpu_ms for c in costs), max(c.memory_mib for c in costs))


def warm(call: Callable[[], object]) -> float:
    """CPU time of a call, in ms."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1000


def btf(path: Path, program: Path, runs: int) -> Dict[str, Any]:
    """Our reader of BTF, warm and as a process, and bpftool and pahole for the same types."""
    machine = of_machine(os.uname().machine)
    wanted = wanted_fields(machine)
    data = path.read_bytes()
    structs = ",".join(sorted(name.split()[1] for name in wanted if name.startswith("struct ")))

    def fields() -> None:
        Btf(data).extract(wanted, machine.pointer_size)

    def with_functions() -> None:
        blob = Btf(data)
        blob.extract(wanted, machine.pointer_size)
        blob.func_ids(hooks.functions())

    def with_drgn() -> None:
        blob = Btf(data)
        blob.extract(wanted, machine.pointer_size)
        drgn_layout.extract(finder.BtfTypes(blob.data, machine).prog, wanted)

    with tempfile.TemporaryDirectory() as directory:
        small = os.path.join(directory, "min.btf")
        commands = {
            "`bpftool gen min_core_btf`": ["bpftool", "gen", "min_core_btf", str(path), small, str(program)],
            "`pahole -C`": ["pahole", "-C", structs, str(path)],
            "a process of its own": [sys.executable, "-I", "-S", "-c", READER, str(path), machine.name],
            "of that, Python's start": [sys.executable, "-I", "-S", "-c", ""],
        }
        if DISTRIBUTIONS_PYTHON.exists():
            commands["with the distribution's Python"] = [
                str(DISTRIBUTIONS_PYTHON),
                *commands["a process of its own"][1:],
            ]
        costs: Dict[str, List[Cost]] = {name: [] for name in commands}
        calls: Dict[Callable[[], None], List[float]] = {fields: [], with_functions: [], with_drgn: []}
        for _ in range(runs):
            for name, command in commands.items():
                costs[name].append(process(command))
            for call, times in calls.items():
                times.append(statistics.median(warm(call) for _ in range(3)))
    rows: Dict[str, Dict[str, float]] = {name: median(found)._asdict() for name, found in costs.items()}
    once, functions, agreed = (statistics.median(times) for times in calls.values())
    rows["reader, warm"] = {"cpu_ms": once}
    rows["with the ids of functions"] = {"cpu_ms": functions}
    rows["the agreement of drgn, on top"] = {"cpu_ms": agreed - once}
    tools = rows["`bpftool gen min_core_btf`"]["cpu_ms"] + rows["`pahole -C`"]["cpu_ms"]
    for row in list(rows.values())[2:]:
        row["share"] = row["cpu_ms"] / tools
    return {
        "bytes": len(data),
        "types": len(Btf(data)),
        "wanted types": len(wanted),
        "wanted fields": sum(map(len, wanted.values())),
        "rows": rows,
    }


def dwarf(package: Path, runs: int = 3) -> Dict[str, Any]:
    """drgn on the DWARF of a debug package's vmlinux, and pahole on the same file.

    The file is one that lies on a disk: of a file that was just written, the kernel maps more than what is looked at.
    """
    with open_source(package) as kernel, tempfile.TemporaryDirectory(prefix="bench-gen.") as directory:
        assert kernel.dwarf is not None
        structs = ",".join(name.split()[1] for name in wanted_fields(kernel.arch) if name.startswith("struct "))
        path = os.path.join(directory, "vmlinux")
        kernel.dwarf.seek(0)
        with open(path, "wb") as file:
            shutil.copyfileobj(kernel.dwarf, file, 1 << 20)
            file.flush()
            size = file.tell()
            known = [sys.executable, "-c", DWARF_READER, path, "known"]
            written = median([process(known) for _ in range(runs)])
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        commands = {
            "`pahole -F dwarf -C`": ["pahole", "-F", "dwarf", "-C", structs, path],
            "sockpid-gen": known,
            "the same with the file's SHA-256": [*known[:-1], ""],
            "the command `sockpid-gen add`": [
                *(sys.executable, "-m", "sockpid_gen", "add", "--offsets", os.path.join(directory, "offsets"), path)
            ],
        }
        costs: Dict[str, List[Cost]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                costs[name].append(process(command))
    found = {name: median(each) for name, each in costs.items()}
    theirs = found["`pahole -F dwarf -C`"]
    rows: Dict[str, Dict[str, float]] = {name: cost._asdict() for name, cost in found.items()}
    rows["sockpid-gen, of a file just written"] = written._asdict()
    for row in list(rows.values())[1:]:
        row["share"] = row["cpu_ms"] / theirs.cpu_ms
        row["memory share"] = row["memory_mib"] / theirs.memory_mib
    return {"file": package.name, "bytes": size, "rows": rows}


def liblzma() -> str:
    """The version of the liblzma that Python's lzma module uses."""
    import _lzma

    version = ctypes.CDLL(getattr(_lzma, "__file__", None)).lzma_version_string
    version.restype = ctypes.c_char_p
    return str(version().decode())


def versions() -> Dict[str, str]:
    found = {"Python": platform.python_version(), "drgn": str(drgn.__version__)}
    for tool in ("bpftool", "pahole"):
        output = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
        found[tool] = output.split()[-1 if tool == "pahole" else 1].lstrip("v")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--btf", type=Path, default=LIVE)
    parser.add_argument("--sample", type=int, default=0, help="how many kernels of the mirrors")
    parser.add_argument("--keep", type=Path, help="a directory in which their packages stay")
    parser.add_argument("--state", type=Path, default=ROOT / ".cache/crawl/apt", help="where apt keeps their indices")
    parser.add_argument("--debug", type=Path, help="a debug package, for DWARF")
    parser.add_argument("--object", type=Path, default=ROOT / "build/sockpid.bpfel.o", help="what clang made")
    arguments = parser.parse_args()
    document: Dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    stamp = {"day": datetime.date.today().isoformat(), "versions": versions()}
    document["btf"] = {**btf(arguments.btf, arguments.object, arguments.runs), **stamp}
    if arguments.sample:
        found = mirrors.measure(arguments.sample, arguments.state, arguments.keep)
        document.setdefault("packages", {})[liblzma()] = {**found, **stamp}
    if arguments.debug:
        document["dwarf"] = {**dwarf(arguments.debug), **stamp}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    generator_report.write()
    print(generator_report.figures(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
