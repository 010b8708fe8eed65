"""Guests in which time counts instructions: what a job costs there does not depend on the host's load."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.vm import catalogue
from tests.vm.kernels import Guest, Kernel
from tests.vm.newc import PROGRAM, Entry, archive

GUEST = Path(__file__).with_name("guest")
FIELD = GUEST.parents[1] / "accuracy/field"
KERNEL = "6.1/amd64"

Job = tuple[str, str, int, dict[str, Any]]
"""Name, kind (guest/__main__.py has them), how often, arguments."""


@functools.cache
def kernel() -> Kernel:
    """What guests run: the newest build that the mirror delivers."""
    return catalogue.find(KERNEL)


@functools.cache
def programs() -> bytes:
    """The archive of what makes the traffic, for any guest."""
    entries: dict[str, Entry] = {}
    with tempfile.TemporaryDirectory() as directory:
        for source in GUEST.glob("*.c"):
            program = Path(directory, source.stem)
            command = ["gcc", "-static", "-O2", "-Wall", "-Werror", "-o", str(program), str(source)]
            subprocess.run(command, check=True, capture_output=True)
            entries[f"run/{source.stem}"] = Entry(PROGRAM, program.read_bytes())
    return archive(entries)


def play(
    jobs: Sequence[Job],
    more: bytes = b"",
    memory: int = 512,
    timeout: float = 1800,
    btf: bool = False,
    files: dict[str, bytes] | None = None,
) -> list[tuple[str, dict[str, Any]]]:
    """The figures of each run of each job, in order. more: another archive, see Guest.run."""
    given = {f"/run/guest/{path.name}": path.read_bytes() for path in GUEST.glob("*.py")}
    root = GUEST.parents[2]
    for path in (root / "tests/__init__.py", root / "tests/accuracy/__init__.py", *FIELD.glob("*.py")):
        given[f"/sockpid/{path.relative_to(root)}"] = path.read_bytes()
    given |= {"/run/jobs.json": json.dumps(jobs).encode(), **(files or {})}
    result = Guest(kernel()).run(
        ["python3", "-I", "-S", "/run/guest"],
        timeout=timeout,
        files=given,
        memory=memory,
        icount=True,
        btf=btf,
        more=programs() + more,
    )
    if result.status:
        raise RuntimeError(f"status {result.status}: {result.stdout}{result.stderr}")
    return [(name, figures) for name, figures in json.loads(result.files["figures.json"])]
