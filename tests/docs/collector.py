"""The OpenTelemetry collector's core, built from Debian's packages of its source and of Go: the program is in none."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.vm import cache, packages

SOURCE = Path(__file__).with_name("collector.go")
SUITE = "sid"
"""No earlier one has it."""


def program() -> Path:
    """Built at the first call: 350 MB of packages, two minutes of a core, 30 MB that stay. Raises PackageError if the
    packages cannot be had."""
    directory = cache.directory("collector")
    found = directory / "collector"
    with cache.locked(directory):
        if not found.exists() or found.stat().st_mtime < SOURCE.stat().st_mtime:
            with tempfile.TemporaryDirectory(dir=directory) as root:
                _unpack(Path(root))
                _build(Path(root), found)
    return found


def _unpack(root: Path) -> None:
    machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    arch = machine.stdout.strip()
    wanted = packages.with_dependencies(["golang-opentelemetry-collector-dev", "golang-go"], SUITE, arch)
    for deb in packages.fetch_all([name for name in wanted if name.startswith("golang-")], SUITE, arch):
        subprocess.run(["dpkg-deb", "--extract", deb, root], check=True)


def _build(root: Path, program: Path) -> None:
    (go,) = root.glob("usr/lib/go-*")
    workspace = root / "usr/share/gocode"
    here = workspace / "src/sockpid/collector"
    here.mkdir(parents=True)
    (here / "main.go").write_bytes(SOURCE.read_bytes())
    settings = {"GOROOT": str(go), "GOPATH": str(workspace), "GO111MODULE": "off", "GOPROXY": "off", "CGO_ENABLED": "0",
                "GOCACHE": str(root / "cache"), "GOTELEMETRY": "off"}  # fmt: skip
    command: list[str | Path] = [go / "bin/go", "build", "-ldflags", "-s -w", "-o", program, "."]
    subprocess.run(command, cwd=here, env={**os.environ, **settings}, check=True)
