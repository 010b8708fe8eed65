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


def run_where_nothing_can_be_written(bundle: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Runs sockpid's commands out of a copy of a bundle, one after another, in a mount namespace of which every file
    system is read-only. Without any environment. Needs root."""
    script = f"""
        mount -t tmpfs none /mnt && cp {bundle} /mnt/sockpid.pyz && mount -o remount,ro /mnt || exit 9
        for d in / /tmp /var/tmp /dev/shm /root /run; do
            mount --bind $d $d && mount -o remount,bind,ro $d || exit 8
            ( : >$d/.written ) 2>/dev/null && exit 7
        done
        run() {{ env -i {sys.executable} -I -S /mnt/sockpid.pyz "$@" || exit; }}
    """
    script += "\n".join(f"run {command}" for command in commands)
    command = ["unshare", "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
