"""The generator as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def add(source: Path, offsets: Path) -> Path:
    """`sockpid-gen add SOURCE --offsets DIR` into an empty directory; the shard it wrote."""
    command = [sys.executable, "-m", "sockpid_gen", "add", str(source), "--offsets", str(offsets)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (shard,) = offsets.glob("*/*.json")
    return shard
