"""The lab itself: what every guest offers, and how guests that misbehave are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import packages, qemu
from .kernels import Guest

# Each architecture once.
ARCHES = ("6.12/amd64", "6.1/arm64", "6.12/armhf", "6.12/ppc64el", "6.12/riscv64", "6.12/s390x")
PROBE = {"tmp/probe_lab.py": (Path(__file__).parent / "guest" / "probe_lab.py").read_bytes()}


@pytest.mark.guests(*ARCHES)
def test_guest_offers_what_tests_rely_on(guest: Guest) -> None:
    result = guest.run(["python3", "-I", "-S", "/tmp/probe_lab.py"], files=PROBE)
    assert result.status == 0, result.stderr + result.console
    found = json.loads(result.stdout)
    assert found.pop("kprobe_pmu") > 0
    assert found.pop("byte_order") == ("big" if guest.kernel.arch == "s390x" else "little")
    assert found.pop("pointer_size") == (4 if guest.kernel.arch == "armhf" else 8)
    assert found.pop("notes") > 0
    assert "runtime" in found.pop("sockpid")
    assert found == {
        "release": guest.kernel.package.release,
        "btf": False,
        "ipv4": "over the loopback",
        "ipv6": "over the loopback",
        "map_create": 0,
        "tracefs": True,
    }


@pytest.mark.guests("6.1/amd64")
def test_result_carries_status_both_outputs_and_files(guest: Guest) -> None:
    script = "echo out; echo err >&2; echo kept >/run/result/note; test -e /sys/kernel/btf/vmlinux || exit 4; exit 3"
    result = guest.run(["sh", "-c", script], btf=True, files={"a/b.json": b"{}"})
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert result.files["note"] == b"kept\n"


@pytest.mark.guests("6.1/amd64")
def test_command_that_hangs_is_killed_and_reported(guest: Guest) -> None:
    with pytest.raises(qemu.GuestTimeout, match="killed after 2 s") as caught:
        guest.run(["sh", "-c", "echo so far; sleep 1000"], timeout=2)
    assert caught.value.stdout == "so far\n"
    assert "--- command" in caught.value.console


@pytest.mark.guests("6.1/amd64")
def test_guest_that_hangs_is_killed_and_reported(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "REPORT_LIMIT", 2.0)
    # Stops every process but init and itself, init's watchdog among them.
    with pytest.raises(qemu.GuestTimeout, match="gave no result within 3 s") as caught:
        guest.run(["sh", "-c", "kill -STOP -1; sleep 1000"], timeout=1)
    assert caught.value.stdout is None


@pytest.mark.guests("6.1/amd64")
def test_panic_is_recognised(guest: Guest) -> None:
    with pytest.raises(qemu.GuestPanic, match="sysrq triggered crash"):
        guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"])


def test_kernel_that_no_suite_offers() -> None:
    with pytest.raises(packages.PackageError, match=r"bookworm offers no 4\.4 kernel of flavour cloud-amd64 for amd64"):
        packages.find_kernel("bookworm", "amd64", "cloud-amd64", "4.4")
