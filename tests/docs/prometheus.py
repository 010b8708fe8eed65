"""Prometheus' own programs, taken out of Debian's package: that would start a service where it is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm import cache, packages


def program(name: str) -> Path:
    """name: "prometheus" or "promtool". Raises PackageError if it cannot be had."""
    directory = cache.directory("prometheus")
    found = directory / "usr/bin" / name
    with cache.locked(directory):
        if not found.exists():
            machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
            package = packages.fetch("prometheus", "bookworm", machine.stdout.strip())
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacked:
                subprocess.run(["tar", "-x", "-C", directory, f"./usr/bin/{name}"], stdin=unpacked.stdout, check=True)
    return found
