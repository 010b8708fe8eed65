"""A slice of the matrix: each architecture and series once, each way of attaching at least once, the smallest guest."""

from __future__ import annotations

import concurrent.futures

import pytest

from . import catalogue, cell, tables
from .cell import Way
from .conftest import unavailable
from .kernels import KERNELS, USUAL, Guest

FENTRY, RAW_TP, PMU, TRACEFS = (Way(mechanism) for mechanism in cell.MECHANISMS)
PERF_BUFFER = Way(deny=("ringbuf",))

# What the kernels of each architecture were seen to have; riscv64 has no kprobe at the entry of a function.
SLICE = {
    "amd64": (TRACEFS, PERF_BUFFER),
    "armhf": (PMU, PERF_BUFFER),
    "ppc64el": (PMU, RAW_TP),
    "riscv64": (FENTRY, PERF_BUFFER),
    "s390x": (PMU, PERF_BUFFER, FENTRY),
}


@pytest.mark.guests("6.1/amd64", "6.12/armhf", "6.12/ppc64el", "6.12/riscv64", "6.12/s390x")
def test_every_architecture(guest: Guest) -> None:
    *ways, last = SLICE[guest.kernel.arch]
    document = cell.run(guest.kernel, SLICE[guest.kernel.arch])
    found = document["ways"].pop(last.name)
    if guest.kernel.arch == "s390x":  # Debian's have no BPF JIT, and without one no trampolines
        assert found["verdict"] == "absent"
        assert "tcp_connect" in found["reason"]
    else:
        assert found["verdict"] == "right", found
    assert {name: (found["verdict"], found.get("reason")) for name, found in document["ways"].items()} == {
        way.name: ("right", None) for way in ways
    }
    for way in ways:
        found = document["ways"][way.name]
        assert found["offsets"] == "table"
        assert found["families"] == ["inet", "inet6", "mapped"]
        if way.attach:
            assert found["hooks"]["connect"].startswith(f"{way.attach} ")


@pytest.mark.vm
@pytest.mark.download
def test_every_series() -> None:
    """The series that no other test boots, as the mirrors have them today.

    One that the published table does not know at all is left to `make lab`: nobody has said yet that it works.
    """
    if missing := KERNELS["6.1/amd64"].missing():
        unavailable(missing)
    booted = {kernel.series for kernel in KERNELS.values() if kernel.arch == "amd64"}
    offered = {kernel.series: kernel for kernel in catalogue.discover(["amd64"]) if kernel.flavour == USUAL["amd64"]}
    assert booted & set(offered), "no index could be had"
    others = [kernel for series, kernel in offered.items() if series not in booted]
    unknown = {kernel for kernel in others if not (tables.PUBLISHED / kernel.shard).exists()}
    for kernel in unknown:
        tables.ORIGINS[kernel.name] = "not booted, for the published table does not know the series"
    others = [kernel for kernel in others if kernel not in unknown]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        documents = list(pool.map(lambda kernel: cell.run(kernel, [FENTRY]), others))
    found = {document["series"]: document["ways"]["fentry"] for document in documents}
    assert {series: (one["verdict"], one.get("reason")) for series, one in found.items()} == {
        kernel.series: ("right", None) for kernel in others
    }


@pytest.mark.guests("6.1/amd64")
def test_112_mib_are_enough(guest: Guest) -> None:
    """A kernel, busybox and a Python without pip or anything else that sockpid does not import."""
    content, _ = cell.offsets(guest.kernel)
    script = """
        cat /proc/meminfo >/run/result/meminfo
        python3 -c 'import pip' 2>/dev/null && exit 9
        exec python3 -I -S /sockpid/runtime selftest --deny live-btf
    """
    files = {f"/sockpid/offsets/{guest.kernel.shard}": content}
    result = guest.run(["sh", "-c", script], timeout=90, files=files, memory=112, minimal=True)
    assert result.status == 0, result
    assert "all right" in result.stdout
    total = int(result.files["meminfo"].split()[1])
    assert total < 112 * 1024
