"""What kernels of the mirrors cost from package to entry: a random sample of all that a crawl would read.

Every kernel of every suite and architecture has the same chance. The sample depends on the seed and on what the mirrors
have; what they list but no longer have is left out, by name. One package at a time is on disk, unless they are kept.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from unittest.mock import patch

from sockpid.errors import NoTypesError, SourceError
from sockpid_gen.cli.crawl import ARCHITECTURES
from sockpid_gen.crawl import apt, plan
from sockpid_gen.extraction import extraction
from sockpid_gen.extraction.wanted import wanted_fields
from sockpid_gen.files import package, sections
from sockpid_gen.files.stream import sha256_of
from sockpid_gen.kernel import front, vmlinuz
from sockpid_gen.kernel.source import open_source

RUNS = 3
SEED = 1
_PAYLOADS = {b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4", b"\x1f\x8b\x08": "gzip"}


class Drawn(NamedTuple):
    """One kernel of the sample. arch is Debian's name."""

    arch: str
    task: plan.Task


def draw(count: int, state: Path) -> Tuple[List[Drawn], int]:
    """Kernels in the order that SEED and their packages' hashes give, twice as many as wanted; how many there are."""
    drawn: Dict[str, Drawn] = {}
    for arch in ARCHITECTURES:
        for task in plan.of_suites(apt.SUITES, arch, state, lambda text: print(text, file=sys.stderr)):
            drawn.setdefault(task.key, Drawn(arch, task))
    ranked = sorted(drawn, key=lambda key: hashlib.sha256(f"{SEED} {key}".encode()).digest())
    return [drawn[key] for key in ranked[: 2 * count]], len(drawn)


def measure(count: int, state: Path, keep: Optional[Path]) -> Dict[str, Any]:
    """Costs of `count` kernels. keep: a directory in which fetched packages stay, and are found again."""
    candidates, population = draw(count, state)
    rows: Dict[str, Any] = {}
    gone: List[str] = []
    for arch, task in candidates:
        if len(rows) == count:
            break
        try:
            rows[task.file.name] = {"arch": arch, **_kernel(task, keep)}
        except SourceError as error:
            print(f"{task.file.name}: {error}", file=sys.stderr)
            gone.append(task.file.name)
    return {"seed": SEED, "population": population, "gone": gone, "rows": rows}


def _kernel(task: plan.Task, keep: Optional[Path]) -> Dict[str, Any]:
    """One kernel: its package and, if there are no types in it, its debug package on top, as in a crawl."""
    spent, files = 0.0, list(task.files)
    while True:
        with tempfile.TemporaryDirectory(prefix="bench-gen.") as directory:
            path = _fetched(files.pop(0), keep or Path(directory))
            try:
                row = _package(path)
            except NoTypesError:
                if not files:
                    raise
                start = time.process_time()
                try:
                    with open_source(path, sha256=""):
                        pass
                except NoTypesError:
                    spent += (time.process_time() - start) * 1000
                continue
            row["cpu_ms"] += spent
            return row


def _fetched(file: plan.File, directory: Path) -> Path:
    path = directory / file.name
    if not path.exists() or plan.sum_of(path) != file.sha256:
        directory.mkdir(parents=True, exist_ok=True)
        apt.download(file.uri, file.sha256, path)
    return path


def _package(path: Path) -> Dict[str, Any]:
    """From package to entry in one process, and what part of that is unpacking the kernel.

    A crawl saves the file's SHA-256: apt has compared it. Also holds what the front part of a kernel tells against what
    all of it tells.
    """
    form, times = _form(path), []
    for _ in range(1 if form == "debug" else RUNS):
        start = time.process_time()
        with open_source(path, sha256="") as kernel:
            opened = time.process_time()
            extraction.extract(kernel, wanted_fields(kernel.arch))
            times.append((time.process_time() - start, opened - start))
    entry, unpacking = min(times)
    start = time.process_time()
    with path.open("rb") as file:
        sha256_of(file)
    summing = time.process_time() - start
    if form != "debug":
        with patch.object(front, "read", lambda _: None), open_source(path, sha256="") as whole:
            assert whole == kernel, f"{path.name}: its front part tells something else"
    return {
        "form": form,
        "mib": path.stat().st_size / (1 << 20),
        "cpu_ms": entry * 1000,
        "unpacking": unpacking / entry,
        "with SHA-256": (entry + summing) / entry,
    }


def _form(path: Path) -> str:
    """How a package's kernel is packed: "raw" (not by itself), "xz", ..., "debug" for vmlinux with DWARF, or "ELF"."""
    with path.open("rb") as file:
        name, content = next(package.kernel(file, "deb"))
        start = content.read(1 << 16)
    if start.startswith(sections.ELF_MAGIC):
        return "debug" if "/debug/" in name else "ELF"
    place = vmlinuz.place(start)
    if place is None:
        return "scanned"
    payload = start[place.offset : place.offset + 4]
    return "raw" if place.arch else next((n for m, n in _PAYLOADS.items() if payload.startswith(m)), "?")
