"""Where scenarios are played: on this machine, or on a kernel of the VM lab."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FIELD = ROOT / "tests/accuracy/field"
LIMIT = 1800.0
TLS_MODULES = ("gf128mul", "ghash-generic", "ctr", "gcm", "tls")

Json = dict[str, Any]


class Played(NamedTuple):
    """What came back: the scenarios' truth, the probe's events, and `sockpid doctor --json`."""

    truth: list[Json]
    events: list[Json]
    doctor: Json
    logs: str

    @property
    def lost(self) -> int:
        """Events that the probe says it lost."""
        return sum(int(number) for number in re.findall(r"(\d+) lost", self.logs))


def natively(arguments: Sequence[str]) -> Played:
    """On this machine, which must be able to load BPF."""
    with tempfile.TemporaryDirectory(prefix="accuracy.") as directory:
        command = [sys.executable, "-I", "-S", str(FIELD), "--output", directory, *arguments]
        subprocess.run(command, check=True, timeout=LIMIT)
        return _read({path.name: path.read_bytes() for path in Path(directory).iterdir()})


def in_guest(name: str, arguments: Sequence[str]) -> Played:
    """On a kernel of the lab, with offsets that the generator takes from its package."""
    from tests import generator
    from tests.vm import catalogue
    from tests.vm.kernels import Guest

    guest = Guest(catalogue.find(name))
    with tempfile.TemporaryDirectory(prefix="accuracy.") as directory:
        shard = generator.add(guest.kernel.deb(), Path(directory))
        files = {f"/sockpid/offsets/{shard.relative_to(directory)}": shard.read_bytes()}
    for path in (ROOT / "tests/__init__.py", ROOT / "tests/accuracy/__init__.py", *FIELD.glob("*.py")):
        files[f"/sockpid/{path.relative_to(ROOT)}"] = path.read_bytes()
    modules = kernel_modules(guest.kernel.deb())
    files.update({f"/run/modules/{name}.ko": content for name, content in modules.items()})
    insert = "".join(f"insmod /run/modules/{name}.ko; " for name in modules)
    field = "exec python3 -I -S /sockpid/tests/accuracy/field --output /run/result --own-machine"
    command = ["sh", "-c", f'{insert}{field} "$@"', "field", *arguments]
    result = guest.run(command, timeout=LIMIT, files=files, smp=2, memory=512)
    if result.status:
        raise RuntimeError(f"{name}: status {result.status}: {result.stdout}{result.stderr}")
    return _read(result.files)


def kernel_modules(deb: Path) -> dict[str, bytes]:
    """The modules that kernel TLS takes, from the kernel's package, in the order to insert them; {} if it has none."""
    found: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as package:
        with tarfile.open(fileobj=package.stdout, mode="r|") as members:
            for member in members:
                name = Path(member.name).name
                if name in {f"{wanted}.ko" for wanted in TLS_MODULES}:
                    content = members.extractfile(member)
                    found[name.removesuffix(".ko")] = content.read() if content else b""
        package.communicate()
    return {name: found[name] for name in TLS_MODULES if name in found}


def _read(files: Mapping[str, bytes]) -> Played:
    def lines(prefix: str) -> list[Json]:
        texts = [content.decode() for name, content in sorted(files.items()) if name.startswith(prefix)]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    logs = "".join(content.decode() for name, content in sorted(files.items()) if name.startswith("probe."))
    return Played(lines("truth."), lines("events."), json.loads(files["doctor.json"]), logs)
