"""The program of `sockpid-gen bundle --standalone`: the same bytes twice, and right on a host without Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import bundles, generator

from . import packages, unpack
from .kernels import KERNELS, Guest
from .newc import archive
from .test_bundle import WORKLOAD, demand_right

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOCKPID_AIRGAP"), reason="runs PyInstaller for half a minute: make airgap"
)
# The workload takes a Python, which is put aside until the program runs.
SCRIPT = """
    mkdir -p /aside/bin /aside/lib; mv /sockpid /truth
    mv /usr/lib/python3* /aside/lib; mv /usr/bin/python3* /aside/bin
    python3 --version 2>/dev/null && exit 8
    [ "$(ls /sys/class/net)" = lo ] && [ ! -e /sys/kernel/btf/vmlinux ] || exit 9
    chmod +x /program
    /program selftest --json --deny live-btf >/run/result/selftest || exit 10
    /program run --json --deny live-btf >/run/events 2>/run/ready & probe=$!
    for i in $(seq 200); do grep -q 'offsets from' /run/ready && break; sleep 0.2; done
    mv /aside/lib/* /usr/lib; mv /aside/bin/* /usr/bin
    python3 -I -S /truth/tests/workload.py --processes 4 --seconds 2 >/run/result/truth
    kill $probe; wait $probe; status=$?
    cp /run/events /run/ready /run/result
    exit $status
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("standalone")
    generator.add(KERNELS["6.1/amd64"].deb(), directory / "offsets")
    arguments = ["--standalone", "--offsets", str(directory / "offsets"), "--without-pyroute2"]
    made = [bundles.make(directory / name, *arguments) for name in ("one", "two")]
    assert made[0].read_bytes() == made[1].read_bytes()
    return made[0]


def test_it_says_which_c_library_it_takes(program: Path) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env={})
    assert "standalone: x86_64, glibc 2." in done.stdout


def test_it_is_not_installed_as_a_bundle_is(program: Path) -> None:
    done = subprocess.run([program, "install"], capture_output=True, text=True, check=False, env={})
    assert (done.returncode, "one file to copy" in done.stderr) == (2, True)


@pytest.mark.guests("6.1/amd64")
def test_it_is_right_on_a_host_without_python(guest: Guest, program: Path) -> None:
    library = archive(dict(unpack.members(packages.fetch("libc6", "bookworm", "amd64"), r"lib/.*\.so[.\d]*")))
    files = {**WORKLOAD, "/program": program.read_bytes()}
    demand_right(guest.run(["sh", "-c", SCRIPT], timeout=300, files=files, more=library, memory=768))
