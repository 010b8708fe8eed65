"""The program of `sockpid-gen bundle --standalone`: the same bytes twice, and right on a host without Python.

That guest has the kernel, busybox, the program, and the libraries that it says it takes. What it watches is the
workload of the other guests, made into such a program, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bundles, generator

from . import catalogue, initramfs, packages, qemu, unpack
from .kernels import Guest
from .newc import PROGRAM, Entry, archive
from .test_bundle import demand_right

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOCKPID_AIRGAP"), reason="runs PyInstaller for half a minute: make airgap"
)
SUITE = "bookworm"  # whose C library the guest has
SCRIPT = """
    find / -xdev '(' -name '*python*' -o -name '*.py' -o -name '*.pyc' ')' >/run/result/interpreters
    [ "$(ls /sys/class/net)" = lo ] && [ ! -e /sys/kernel/btf/vmlinux ] || exit 9
    /program --version >/run/result/version || exit 11
    /program selftest --json --deny live-btf >/run/result/selftest || exit 10
    /program run --json --deny live-btf >/run/events 2>/run/ready & probe=$!
    for i in $(seq 200); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
    /workload --processes 4 --name trainer --seconds 2 >/run/result/truth || exit 12
    kill $probe; wait $probe; status=$?
    cp /run/events /run/ready /run/result
    exit $status
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("standalone")
    generator.add(catalogue.find("6.1/amd64").deb(), directory / "offsets")
    arguments = ["--standalone", "--offsets", str(directory / "offsets"), "--without-pyroute2"]
    made = [bundles.make(directory / name, *arguments) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    return made[0]


LIBRARIES = {"libz.so.1": "zlib1g"}
"""What a program may say it takes besides the C library, and the package that has it."""


def taken(text: str) -> tuple[tuple[int, ...], list[str]]:
    """The version and the libraries in "standalone: x86_64, glibc 2.35 or later, libz.so.1, Python 3.11.7"."""
    (found,) = re.findall(r"^standalone: x86_64, glibc ([0-9.]+) or later, (.*)Python 3", text, re.MULTILINE)
    return tuple(int(number) for number in found[0].split(".")), found[1].split(", ")[:-1]


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("workload")
    freeze = [
        sys.executable,
        "-m",
        "PyInstaller",
        "--log-level=ERROR",
        "--onefile",
        "--paths",
        str(bundles.ROOT / "runtime"),
    ]
    subprocess.run([*freeze, bundles.ROOT / "tests/workload.py"], cwd=directory, check=True, capture_output=True)
    return (directory / "dist/workload").read_bytes()


def root(program: Path, workload: bytes) -> bytes:
    """The archive of the two programs and what the first says it takes, and of nothing else."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env={}).stdout
    version, libraries = taken(said)
    libc = packages.fetch("libc6", SUITE, "amd64")
    assert version <= tuple(int(number) for number in libc.name.split("_")[1].partition("-")[0].split("."))
    entries = dict(unpack.members(libc, r"lib(64)?/.*\.so[.\d]*"))
    for name in libraries:
        entries.update(unpack.members(packages.fetch(LIBRARIES[name], SUITE, "amd64"), rf"(usr/)?lib/.*/{name}.*"))
    entries.update(program=Entry(PROGRAM, program.read_bytes()), workload=Entry(PROGRAM, workload))
    return archive(entries)


def test_it_is_not_installed_as_a_bundle_is(program: Path) -> None:
    done = subprocess.run([program, "install"], capture_output=True, text=True, check=False, env={})
    assert (done.returncode, "one file to copy" in done.stderr) == (2, True)


@pytest.mark.guests("6.1/amd64")
def test_it_is_right_on_a_host_without_python(guest: Guest, program: Path, workload: bytes) -> None:
    archives = [initramfs.bare("amd64"), root(program, workload), initramfs.order(["sh", "-c", SCRIPT], {})]
    result = qemu.boot(guest.kernel.vmlinuz(), b"".join(archives), "amd64", timeout=300, memory=768)
    demand_right(result)
    assert result.files["interpreters"].decode() == ""
    assert b"Python 3" in result.files["version"]
