"""Where a storm is played: on this machine, or on a kernel of the VM lab."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FIELDS = (ROOT / "tests/storm/field", ROOT / "tests/accuracy/field")
LIMIT = 1800.0
MEMORY = 768

Json = dict[str, Any]


class Played(NamedTuple):
    """What came back of one storm. events: what the probe printed, in each of its runs."""

    log: bytes
    phases: list[Json]
    events: list[bytes]
    doctor: Json
    said: str

    @property
    def lost(self) -> int:
        """Events that the probe says it lost."""
        return sum(int(number) for number in re.findall(r"(\d+) lost", self.said))

    def save(self, directory: Path) -> None:
        """Puts down the files that they came from."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "storm.log").write_bytes(self.log)
        (directory / "doctor.json").write_text(json.dumps(self.doctor), encoding="utf-8")
        (directory / "probe.0.log").write_text(self.said, encoding="utf-8")
        (directory / "phases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.phases), "utf-8")
        for number, content in enumerate(self.events):
            (directory / f"events.{number}.jsonl").write_bytes(content)

    def lines(self, number: int) -> Iterator[Json]:
        for line in self.events[number].splitlines():
            yield json.loads(line)


def digest() -> str:
    """Of the runtime and the programs: results of different ones are not added up."""
    found = hashlib.sha256()
    for path in sorted([*ROOT.glob("runtime/**/*.py"), *ROOT.glob("bpf_bytecode/*.json")]):
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def natively(arguments: Sequence[str]) -> Played:
    """On this machine, which must be able to load BPF."""
    with tempfile.TemporaryDirectory(prefix="storm.") as directory:
        command = [sys.executable, "-I", "-S", str(FIELDS[0]), "--output", directory, *arguments]
        done = subprocess.run(command, check=False, timeout=LIMIT, stderr=subprocess.PIPE)
        files = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
        return _read(files, done.stderr.decode(errors="replace"), done.returncode)


def in_guest(name: str, append: str, smp: int, arguments: Sequence[str]) -> Played:
    """On a kernel of the lab, with offsets that the generator takes from its package."""
    from tests.vm.kernels import FURTHER, KERNELS, Guest

    guest = Guest({**KERNELS, **FURTHER}[name])
    files = dict(_guest_files(name))
    modules = [path for path in files if path.endswith(".ko")]
    insert = "".join(f"insmod {path}; " for path in modules)
    field = "exec python3 -I -S /sockpid/tests/storm/field --output /run/result --guest"
    script = f'{insert}{field} "$@"'
    command = ["sh", "-c", script, "field", *arguments]
    result = guest.run(command, timeout=LIMIT, files=files, smp=smp, memory=MEMORY + 16 * smp, append=append)
    return _read(result.files, result.stderr, result.status)


@functools.cache
def _guest_files(name: str) -> Mapping[str, bytes]:
    """What a guest needs besides sockpid: the storm, the offsets of its kernel, and modules for kernel TLS."""
    from tests import generator
    from tests.accuracy.place import kernel_modules
    from tests.vm.kernels import FURTHER, KERNELS

    deb = {**KERNELS, **FURTHER}[name].deb()
    with tempfile.TemporaryDirectory(prefix="storm.") as directory:
        shard = generator.add(deb, Path(directory))
        files = {f"/sockpid/offsets/{shard.relative_to(directory)}": shard.read_bytes()}
    packages = (ROOT / f"tests/{package}__init__.py" for package in ("", "storm/", "accuracy/"))
    for path in (*packages, *(path for field in FIELDS for path in field.glob("*.py"))):
        files[f"/sockpid/{path.relative_to(ROOT)}"] = path.read_bytes()
    files.update({f"/run/modules/{module}.ko": content for module, content in kernel_modules(deb).items()})
    return files


def _read(files: Mapping[str, bytes], stderr: str, status: int) -> Played:
    phases = [json.loads(line) for line in files.get("phases.jsonl", b"").splitlines()]
    if status or "Traceback" in stderr:
        clock = phases[-1] if phases else {"mono": 0, "real": 0}
        phases.append(
            {**clock, "what": "error", "reason": f"the storm itself failed, status {status}: {stderr[-2000:]}"}
        )
    events = [content for name, content in sorted(files.items()) if name.startswith("events.")]
    said = "".join(content.decode() for name, content in sorted(files.items()) if name.startswith("probe."))
    return Played(files.get("storm.log", b""), phases, events, json.loads(files.get("doctor.json") or b"{}"), said)
