"""Runs other programs, of which there are few: ssh-keygen, systemctl."""

from __future__ import annotations

import subprocess
from typing import List, Optional, Tuple


def run(command: List[str], stdin: Optional[str] = None) -> Tuple[int, str]:
    """Runs a command with a file (None: nothing) as its standard input. Returns its exit status and all that it
    printed. Raises OSError if there is no such command or file."""
    with open(stdin or "/dev/null", "rb") as given:
        done = subprocess.run(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")
