"""The demonstration on a Debian kernel in QEMU, for hosts that cannot load BPF themselves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests import generator

from . import catalogue, packages, qemu
from .kernels import KERNELS, Guest

ROOT = Path(__file__).parents[2]
SCRIPT = """
    python3 -I -S /sockpid/runtime run --deny live-btf 2>/run/ready & probe=$!
    for i in $(seq 150); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
    workload='python3 -I -S /sockpid/tests/workload.py'
    $workload --processes 4 --seconds 2 --name trainer --hogs 2 --families inet,inet6 >/run/truth
    kill $probe; wait $probe; status=$?
    cat /run/ready >&2
    exit $status
"""


def main(name: str = "6.1/amd64") -> int:
    """Boots the kernel and prints what `sockpid run` printed there. Returns its exit status."""
    if missing := KERNELS[name].missing():
        print(f"no virtual machine either: {missing} (`make setup-test` installs it)")
        return 1
    try:
        kernel = catalogue.find(name)
        with tempfile.TemporaryDirectory() as directory:
            shard = generator.add(kernel.deb(), Path(directory))
            files = {
                f"/sockpid/offsets/{shard.relative_to(directory)}": shard.read_bytes(),
                "/sockpid/tests/workload.py": (ROOT / "tests/workload.py").read_bytes(),
            }
            print(f"{kernel.package.name}, offsets from its package; booting takes some seconds", flush=True)
            result = Guest(kernel).run(["sh", "-c", SCRIPT], timeout=120, files=files)
    except (packages.PackageError, qemu.GuestError) as error:
        print(f"the virtual machine: {error}")
        return 1
    print(result.stdout + result.stderr)
    return result.status
