"""A shell that can change nothing of this machine: where the documentation's commands are run.

It has a mount and a network namespace of its own. /etc, /var, /run, /usr/local and root's home are overlays that forget
what is written; bpffs and the loopback interface are new. Process ids are the machine's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SECONDS = 120.0

PROLOGUE = """
set -e
trap : INT
ip link set lo up
over="$SCRATCH/.over"
mkdir -p "$over" && mount -t tmpfs none "$over"
for each in etc var run usr/local root; do
    mkdir -p "$over/new/$each" "$over/scratch/$each"
    mount -t overlay none -o "lowerdir=/$each,upperdir=$over/new/$each,workdir=$over/scratch/$each" "/$each"
done
mkdir -p /var/lib/sockpid /run/sockpid
mount -t bpf none /sys/fs/bpf
cd "$SCRATCH/here"
set +e
"""


class Ran(NamedTuple):
    status: int
    lines: list[str]


class Shell:
    """One bash for all commands of a page: directories, variables and background jobs last."""

    def __init__(self, scratch: Path) -> None:
        self.here = scratch / "here"
        self.here.mkdir()
        self._results = scratch / "results"
        self._results.mkdir()
        self._count = 0
        programs = str(Path(sys.executable).parent)
        environment = {
            **os.environ, "SCRATCH": str(scratch), "PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
            "HOME": "/root", "COLUMNS": "100", "TERM": "dumb",
        }  # fmt: skip
        self._bash = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "bash"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, start_new_session=True, text=True,
        )  # fmt: skip
        ran = self.run(PROLOGUE)
        assert ran.status == 0, ran.lines

    def run(self, text: str, interrupt_at: Callable[[list[str]], bool] | None = None) -> Ran:
        """Runs a command. interrupt_at: is asked of the lines printed so far, until it says to press Ctrl-C."""
        self._count += 1
        output, status = (self._results / f"{self._count}.{kind}" for kind in ("out", "status"))
        assert self._bash.stdin is not None
        told = f"echo $? >'{status}.new'; mv '{status}.new' '{status}'"
        self._bash.stdin.write(f"{{ {text}\n}} >'{output}' 2>&1 </dev/null\n{told}\n")
        self._bash.stdin.flush()
        deadline, interrupted = time.monotonic() + SECONDS, False
        while not status.exists():
            assert self._bash.poll() is None, "the shell ended"
            lines = _lines(output)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text}: still runs after {SECONDS:.0f} s, having printed {lines}")
            if interrupt_at is not None and not interrupted and interrupt_at(lines):
                interrupted = True
                os.killpg(self._bash.pid, signal.SIGINT)
            time.sleep(0.02)
        return Ran(int(status.read_text()), _lines(output))

    def close(self) -> None:
        """Ends it with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.close()
        self._bash.wait()


def _lines(output: Path) -> list[str]:
    return output.read_text(errors="replace").splitlines() if output.exists() else []
