"""BTF made of DWARF by pahole: a second reader of DWARF, which shares nothing with the first."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from sockpid.errors import SourceError

TIMEOUT = 900
"""Seconds after which pahole is given up: a large vmlinux takes it half a minute, and more on a busy machine."""


def version() -> str:
    """What pahole says it is, or "" where there is none."""
    if shutil.which("pahole") is None:
        return ""
    done = subprocess.run(["pahole", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def encode(dwarf: IO[bytes]) -> bytes:
    """The BTF that pahole makes of an open ELF file. Raises SourceError with what it says if it cannot."""
    with tempfile.TemporaryDirectory(prefix="sockpid-gen.") as directory:
        output = Path(directory, "btf")
        file = dwarf.fileno()
        command = ["pahole", f"--btf_encode_detached={output}", f"/proc/self/fd/{file}"]
        try:
            done = subprocess.run(
                command, pass_fds=[file], capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise SourceError(f"pahole: no answer within {TIMEOUT} s") from None
        if done.returncode or not output.exists():
            raise SourceError(f"pahole: {done.stderr.strip() or 'no BTF came of it'}")
        return output.read_bytes()
