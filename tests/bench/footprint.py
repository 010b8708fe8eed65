"""What each tool puts on a host's disk: the installed size of its packages and of all that they depend on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sockpid_gen.bundle import bundle
from tests.vm import packages

from . import machine, owner_c

ROOT = Path(__file__).parents[2]
PYTHON = ("python3-minimal", "libpython3-stdlib")
BASE = ("libc6", "bash", "coreutils")
"""What every host has."""

Figures = dict[str, dict[str, Any]]


def tools() -> Mapping[str, tuple[Sequence[str], str]]:
    """The packages that each needs for the job, and the suite they come from."""
    headers = f"linux-headers-{machine.kernel().package.release}"
    return {
        "bcc, with the kernel headers that it compiles against": (("bpfcc-tools", headers), "bookworm"),
        "bpftrace": (("bpftrace",), "bookworm"),
        "bpftrace, with the headers that tcpretrans.bt includes": (("bpftrace", "libc6-dev"), "bookworm"),
        "libbpf-tools": (("libbpf-tools",), "bookworm"),
        "linux-perf": (("linux-perf",), "bookworm"),
        "trace-cmd": (("trace-cmd",), "bookworm"),
        "ply": (("ply",), "trixie"),
        "Python's standard library": (PYTHON, "bookworm"),
    }


def measure() -> Figures:
    """Per tool MiB and packages beyond BASE, and MiB where the host has Python already."""
    figures: Figures = {}
    for name, (wanted, suite) in tools().items():
        alone = closure(wanted, suite) - closure(BASE, suite)
        with_python = alone - closure(PYTHON, suite)
        figures[name] = {
            "mib": installed(alone, suite), "packages": len(alone), "python_given_mib": installed(with_python, suite),
        }  # fmt: skip
    bundled = len(bundle.build(ROOT / "offsets", bundle.Choice()).content)
    figures["sockpid, bundle with all kernels"] = sizes(bundled, figures["Python's standard library"]["mib"])
    figures["C with libbpf, one static program"] = sizes(len(owner_c.program()), 0)
    return figures


def sizes(content: int, needed: float) -> dict[str, Any]:
    mib = content / (1 << 20)
    return {"mib": mib + needed, "packages": None, "python_given_mib": mib, "bytes": content}


def closure(names: Sequence[str], suite: str) -> frozenset[str]:
    return frozenset(name.partition(":")[0] for name in packages.with_dependencies(names, suite, "amd64"))


def installed(names: frozenset[str], suite: str) -> float:
    """MiB that dpkg says the packages take."""
    total = 0
    for deb in packages.fetch_all(sorted(names), suite, "amd64"):
        done = subprocess.run(["dpkg-deb", "-f", deb, "Installed-Size"], check=True, capture_output=True, text=True)
        total += int(done.stdout)
    return total / 1024


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
