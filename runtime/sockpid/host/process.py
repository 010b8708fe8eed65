"""Runs other programs, of which there are few: ssh-keygen, systemctl."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Dict, List, Optional, Tuple


def run(command: List[str], stdin: Optional[bytes] = None) -> Tuple[int, str]:
    """Runs a command with these bytes (None: nothing) as its standard input. Returns its exit status and all that it
    printed. Raises OSError if there is no such command."""
    done = subprocess.run(
        command,
        input=stdin or b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=_environment(),
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _environment() -> Dict[str, str]:
    """Ours, without the path of the libraries that a standalone program has for itself alone."""
    environment = dict(os.environ)
    if getattr(sys, "frozen", False):
        before = environment.pop("LD_LIBRARY_PATH_ORIG", "")
        environment.pop("LD_LIBRARY_PATH", None)
        if before:
            environment["LD_LIBRARY_PATH"] = before
    return environment
