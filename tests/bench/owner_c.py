"""Builds the hand-written CO-RE program that sockpid is compared with: one static file, as libbpf's tools are."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).with_name("owner")


@functools.cache
def program() -> bytes:
    """The program, statically linked. Needs clang-14, bpftool and libbpf-dev. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as directory:
        built = Path(directory)
        triplet = subprocess.run(["gcc", "-print-multiarch"], check=True, capture_output=True, text=True).stdout.strip()
        headers = ["-I", f"/usr/include/{triplet}", "-D__TARGET_ARCH_x86"]
        bpf = ["clang-14", "-g", "-O2", "-target", "bpf", "-Wall", "-Werror", *headers, "-c"]
        subprocess.run([*bpf, SOURCES / "owner.bpf.c", "-o", built / "owner.bpf.o"], check=True, capture_output=True)
        skeleton: list[str | Path] = ["bpftool", "gen", "skeleton", built / "owner.bpf.o", "name", "owner_bpf"]
        (built / "owner.skel.h").write_bytes(subprocess.run(skeleton, check=True, capture_output=True).stdout)
        compiled: list[str | Path] = ["gcc", "-O2", "-Wall", "-static", "-I", built, "-I", SOURCES, SOURCES / "owner.c"]
        libraries = ["-lbpf", "-lelf", "-lz"]
        subprocess.run([*compiled, "-o", built / "owner", *libraries], check=True, capture_output=True)
        subprocess.run(["strip", built / "owner"], check=True)
        return (built / "owner").read_bytes()
