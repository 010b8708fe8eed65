"""Bundles to try: made as users make them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def make(output: Path, *arguments: str, cwd: Path = ROOT) -> Path:
    """`sockpid-gen bundle -o OUTPUT ARGUMENTS` of this checkout."""
    command = [sys.executable, "-m", "sockpid_gen", "bundle", "-o", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return output


def interpreter(version: str) -> str | None:
    """A Python of this minor version, from PATH or where pyenv keeps them; None: there is none here."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in sorted(pyenv.glob(f"{version}.*/bin/python")):
        return str(found)
    return shutil.which(f"python{version}")
