"""Prometheus' own checker, taken out of Debian's package: that would start a service where it is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm import cache, packages


def promtool() -> Path:
    """The program. Raises PackageError if it cannot be had."""
    directory = cache.directory("promtool")
    found = directory / "usr/bin/promtool"
    with cache.locked(directory):
        if not found.exists():
            machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
            package = packages.fetch("prometheus", "bookworm", machine.stdout.strip())
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacked:
                subprocess.run(["tar", "-x", "-C", directory, "./usr/bin/promtool"], stdin=unpacked.stdout, check=True)
    return found
