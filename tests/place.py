"""Where the programs of tests/accuracy and tests/storm are played: on this machine, or on a kernel of the VM lab."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAMS: tuple[str, ...] = ("tests/__init__.py", "tests/accuracy/__init__.py", "tests/accuracy/field/*.py")
PROGRAMS += ("tests/storm/__init__.py", "tests/storm/field/*.py")
"""What runs on a target: the truth, which must not depend on what is judged."""
JUDGES: tuple[str, ...] = (
    "tests/accuracy/judge.py",
    "tests/storm/history.py",
    "tests/storm/judge.py",
    "tests/storm/lives.py",
)
JUDGES += ("tests/storm/plan.py", "tests/storm/play.py")
LIMIT = 1800.0
PATIENCE = 10.0
MEMORY = 768
MEMORY_OF_A_CPU = 16
TLS_MODULES = ("gf128mul", "ghash-generic", "ctr", "gcm", "tls")

Json = dict[str, Any]


class Played(NamedTuple):
    """What came back: the files that the programs wrote, by name, and what they said."""

    files: Mapping[str, bytes]
    stderr: str
    status: int

    def contents(self, prefix: str) -> list[bytes]:
        """The files whose names begin so, in order of their names."""
        return [content for name, content in sorted(self.files.items()) if name.startswith(prefix)]

    def lines(self, prefix: str) -> Iterator[Json]:
        for content in self.contents(prefix):
            yield from map(json.loads, content.splitlines())

    @property
    def doctor(self) -> Json:
        """`sockpid doctor --json`; {} if it did not come to that."""
        found: Json = json.loads(self.files.get("doctor.json") or b"{}")
        return found

    @property
    def said(self) -> str:
        """What the probe said on its standard error."""
        return b"".join(self.contents("probe.")).decode(errors="replace")

    @property
    def lost(self) -> int:
        """Events that the probe says it lost."""
        return sum(int(number) for number in re.findall(r"(\d+) lost", self.said))

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)
        (directory / "stderr").write_text(self.stderr, encoding="utf-8")


@dataclass(frozen=True)
class Somewhere:
    """Where programs are played, and how the probe is run. kernel None: on this machine, which must load BPF.

    append: words for the kernel's command line. attach, deny: passed to sockpid.
    """

    kernel: str | None = None
    append: str = ""
    smp: int = 2
    attach: str | None = None
    deny: str | None = None

    @property
    def name(self) -> str:
        """What results are entered under."""
        words = [self.kernel or f"{os.uname().release.partition('-')[0]} {os.uname().machine}"]
        words += [word for word in (self.attach, self.append, f"without {self.deny}" if self.deny else "") if word]
        words += [f"{self.smp} CPU{'s' if self.smp > 1 else ''}"] if self.kernel and self.smp != 2 else []
        return ", ".join(words)

    def play(self, field: str, arguments: Sequence[str]) -> Played:
        """Runs tests/FIELD/field. Raises TimeoutExpired, GuestError or PackageError where nothing came of it."""
        given = {"attach": self.attach, "deny": self.deny}
        probe = [f"--probe={word}" for name, value in given.items() if value for word in (f"--{name}", value)]
        command = ["python3", "-I", "-S", f"{{}}/tests/{field}/field", *arguments, *probe]
        return self._in_guest(command) if self.kernel else self._here(command)

    def _here(self, command: Sequence[str]) -> Played:
        with tempfile.TemporaryDirectory(prefix="field.") as directory:
            words = [sys.executable, *(word.format(ROOT) for word in command[1:4]), *command[4:], "--output", directory]
            with subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True) as process:
                _running.add(process)
                try:
                    _, stderr = process.communicate(timeout=LIMIT)
                finally:
                    _running.discard(process)
                    _end(process)
            files = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
            return Played(files, stderr.decode(errors="replace"), process.returncode)

    def _in_guest(self, command: Sequence[str]) -> Played:
        """With the table that guests have, which knows the kernel."""
        from tests.vm import catalogue
        from tests.vm.kernels import Guest

        assert self.kernel
        guest = Guest(catalogue.find(self.kernel))
        files = dict(_files(guest.kernel.deb()))
        insert = "".join(f"insmod {path}; " for path in files if path.endswith(".ko"))
        words = [*(word.format("/sockpid") for word in command[:4]), *command[4:], "--output", "/run/result"]
        result = guest.run(
            ["sh", "-c", f'{insert}exec "$@"', "field", *words, "--own-machine"],
            timeout=LIMIT,
            files=files,
            smp=self.smp,
            memory=MEMORY + MEMORY_OF_A_CPU * self.smp,
            append=self.append,
        )
        return Played(result.files, result.stderr, result.status)


_running: set[subprocess.Popen[bytes]] = set()


def kill_all() -> None:
    """Ends what runs on this machine now."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupted, programs take back what they mounted and made; who does not end by that is killed."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            os.killpg(process.pid, signal.SIGKILL)


@functools.cache
def _files(deb: Path) -> Mapping[str, bytes]:
    """What a guest needs besides sockpid: the programs, and modules for kernel TLS."""
    files = {f"/sockpid/{path.relative_to(ROOT)}": path.read_bytes() for path in _paths(PROGRAMS)}
    files.update({f"/run/modules/{module}.ko": content for module, content in _kernel_modules(deb).items()})
    return files


def _kernel_modules(deb: Path) -> Mapping[str, bytes]:
    """The modules that kernel TLS takes, from the kernel's package, in the order to insert them; {} if it has none."""
    found: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as package:
        with tarfile.open(fileobj=package.stdout, mode="r|") as members:
            for member in members:
                name, _, suffix = Path(member.name).name.partition(".")
                if name in TLS_MODULES and suffix in ("ko", "ko.xz") and (file := members.extractfile(member)):
                    found[name] = lzma.decompress(file.read()) if suffix == "ko.xz" else file.read()
        package.communicate()
    return {name: found[name] for name in TLS_MODULES if name in found}


def runtime_digest() -> str:
    """Of the runtime and the images: results of different ones are never put together."""
    return _digest(_paths(("runtime/**/*.py", "bpf_bytecode/*.json")))


def judges_digest() -> str:
    """Of what plays and judges: nor are those of different judges."""
    return _digest(_paths((*PROGRAMS, *JUDGES)))


def _paths(patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]
