"""The lab's matrix without any guest: what is chosen, what is run again, how a result is judged and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sockpid.table import table
from tests.vm import cell, matrix, packages, report, smallest, tables
from tests.vm.cell import Way
from tests.vm.kernels import Kernel

KERNEL = Kernel("bookworm", "amd64", "rt-amd64", "6.1")
PACKAGE = packages.KernelPackage("linux-image-6.1.0-56-rt-amd64", "6.1.192-2", "6.1.0-56-rt-amd64", "6.1", "rt-amd64")
TRUTH = [
    {
        "pid": 70 + n,
        "comm": f"owner-{n}",
        "netns": 1,
        "family": "inet",
        "saddr": "a",
        "sport": n,
        "daddr": "b",
        "dport": 9,
    }
    for n in range(3)
]
EVENTS = [{**t, "reason": None, "interrupted_pid": 0} for t in TRUTH]


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_kernel", lambda *_: PACKAGE)


@pytest.mark.parametrize(
    ("release", "series", "flavour"),
    [
        ("5.10.0-46-amd64", "5.10", "amd64"),
        ("6.1.0-0.deb11.52-rt-amd64", "6.1", "rt-amd64"),
        ("6.12.117+deb13-arm64-16k", "6.12", "arm64-16k"),
        ("6.12.95+deb12-powerpc64le-64k", "6.12", "powerpc64le-64k"),
        ("7.3-cloud-arm64", "7.3", "cloud-arm64"),
    ],
)
def test_series_and_flavour_of_a_release(release: str, series: str, flavour: str) -> None:
    stanza = f"Package: linux-image-{release}\nVersion: 1\n"
    (kernel,) = packages.images(stanza)
    assert (kernel.release, kernel.series, kernel.flavour) == (release, series, flavour)


def test_large_pages_take_more_memory() -> None:
    large = [
        Kernel("bookworm", "ppc64el", "powerpc64le", "6.1"),
        Kernel("trixie", "ppc64el", "powerpc64le-64k", "6.12"),
    ]
    small = [Kernel("trixie", "ppc64el", "powerpc64le", "6.12"), Kernel("bookworm", "amd64", "cloud-amd64", "6.1")]
    assert [kernel.memory for kernel in large + small] == [1024, 1024, 256, 256]


def test_what_is_no_kernel_image() -> None:
    stanzas = [
        "Package: linux-image-6.1.0-56-amd64-dbg\nVersion: 1\n",
        "Package: linux-image-6.1.0-56-amd64-unsigned\nVersion: 1\n",
        "Package: linux-image-6.1-amd64-signed-template\nVersion: 1\n",
        "Package: linux-image-7.2.13+deb14-amd64\nVersion: 1\nDepends: linux-binary-7.2.13+deb14-amd64 (= 1)\n",
    ]
    assert list(packages.images("\n\n".join(stanzas))) == []


def test_standard_ways_and_chosen_ones() -> None:
    assert [way.name for way in matrix.chosen_ways(None, None)] == [*cell.MECHANISMS, "without ringbuf"]
    (way,) = matrix.chosen_ways(["fentry"], ["ringbuf,cgroup_id"])
    assert way.name == "fentry without cgroup_id and ringbuf"
    assert way.options == "--deny live-btf,cgroup_id,ringbuf --attach fentry"
    assert [way.options for way in matrix.chosen_ways(None, ["ringbuf"])] == ["--deny live-btf,ringbuf"]


def test_what_is_done_is_not_done_again_unless_inputs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [Way("fentry"), Way("raw_tp")]
    results = matrix.Results(tmp_path / "matrix.json")
    assert results.missing(KERNEL, ways, again=False, failed=False) == ways
    done: dict[str, Any] = {"arch": "amd64", "series": "6.1", "flavour": "rt-amd64", "release": PACKAGE.release}
    results.enter(KERNEL, {**done, "ways": {"fentry": {"verdict": "absent", "reason": "no such thing"}}})
    results.enter(KERNEL, {**done, "ways": {"raw_tp": {"verdict": "failed", "reason": "it broke"}}})

    results = matrix.Results(tmp_path / "matrix.json")  # as the next run reads it
    assert results.missing(KERNEL, ways, again=False, failed=False) == []
    assert results.missing(KERNEL, ways, again=False, failed=True) == [Way("raw_tp")]
    assert (results.worth(KERNEL, ways), results.worth(KERNEL, ways[:1])) == (1, 2)
    assert results.missing(KERNEL, ways, again=True, failed=False) == ways
    monkeypatch.setattr(cell, "inputs", lambda _: {"runtime": "another"})
    assert results.missing(KERNEL, ways, again=False, failed=False) == ways


def files(**changes: Any) -> dict[str, bytes]:
    report = {"hooks": {"connect": "fentry tcp_connect"}, "offsets": "table", "families": {}}
    found = {
        "status": "0\n",
        "run": "0\n",
        "selftest": report,
        "events": EVENTS,
        "truth": TRUTH,
        "errors": "",
        **changes,
    }
    return {
        f"w.{name}": (
            "\n".join(map(json.dumps, value))
            if isinstance(value, list)
            else value
            if isinstance(value, str)
            else json.dumps(value)
        ).encode()
        for name, value in found.items()
    }


def test_a_right_cell() -> None:
    found = cell.judge(Way("fentry"), "w", files())
    assert found["verdict"] == "right"
    assert found["accuracy"] == {"right": 3, "wrong": 0, "unknown": 0, "naive_right": 0}


def test_advice_that_was_followed_is_told() -> None:
    advice = "sockpid: refused: needs the JIT; sysctl net.core.bpf_jit_enable=1"
    found = {**cell.judge(Way("fentry"), "w", files(advice=advice + "\n")), "measured": "2026-01-02"}
    assert (found["verdict"], found["advice"]) == ("right", advice)
    kernel = {"arch": "riscv64", "series": "7.2", "flavour": "riscv64", "release": "7.2-riscv64"}
    ways = {"fentry": found, "raw_tp": found}
    text = report.document({"7.2/riscv64": {**kernel, "ways": ways}}, {})
    assert text.count(f"- riscv64 7.2-riscv64: {advice}") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"events": [*EVENTS[:2], {**EVENTS[2], "pid": 1}]}, "1 owner-2, truly 72 owner-2"),
        ({"events": [*EVENTS, {**EVENTS[2], "pid": None, "reason": "evicted"}]}, "evicted"),
        ({"events": EVENTS[:2]}, "events of 2 of 3 owners"),
        ({"status": "8\n", "errors": "sockpid: the self-check"}, "selftest ended with 8: sockpid: the self-check"),
        ({"run": "10\n", "errors": "nothing to attach"}, "run ended with 10: nothing to attach"),
    ],
)
def test_a_failed_cell_says_why(changes: dict[str, Any], reason: str) -> None:
    found = cell.judge(Way("fentry"), "w", files(**changes))
    assert found["verdict"] == "failed"
    assert reason in found["reason"]


def test_offsets_of_another_origin_fail() -> None:
    report = {"hooks": {}, "offsets": "btf", "families": {}}
    assert cell.judge(Way("fentry"), "w", files(selftest=report))["reason"] == "offsets came from btf"


def test_a_mechanism_the_kernel_lacks_is_absent_with_its_reason() -> None:
    refused = [{"mechanism": "fentry tcp_connect", "reason": "no trampolines"}]
    doctor = {"hooks": [{"hook": "connect", "refused": refused}]}
    assert cell.judge(Way("fentry"), "w", files(doctor=doctor)) == {"verdict": "absent", "reason": "no trampolines"}


def test_the_document_tells_right_absent_and_failed() -> None:
    right = {**cell.judge(Way("fentry"), "w", files()), "measured": "2026-01-02"}
    ways = {
        "fentry": right,
        "raw_tp": {"verdict": "absent", "reason": "no such thing", "measured": "2026-01-01"},
        "kprobe-pmu": {"verdict": "failed", "reason": "it broke", "measured": "2026-01-01"},
    }
    kernel = {"arch": "amd64", "series": "6.1", "flavour": "rt-amd64", "release": PACKAGE.release, "ways": ways}
    text = report.document({KERNEL.name: kernel}, {})
    assert "1 kernels of 1 architectures and 1 series: 1 cells right, 1 failed, 1 of mechanisms" in text
    assert "| amd64 6.1.0-56-rt-amd64 | 3 / 3 (0) | - | **FAILED** |" in text
    assert "2026-01-02 |" in text
    assert "- amd64 6.1.0-56-rt-amd64, kprobe-pmu: it broke" in text
    assert "- raw_tp: no such thing (1: amd64 6.1.0-56-rt-amd64)" in text


@pytest.mark.parametrize("least", [32, 40, 96, 248, 256])
def test_the_least_memory_is_found(least: int) -> None:
    tried: list[int] = []

    def right(mib: int) -> bool:
        tried.append(mib)
        return mib >= least

    assert smallest.bisect(right) == least
    assert len(tried) <= 6
    assert least - smallest.STEP in tried or least == smallest.LEAST


def test_no_memory_is_enough() -> None:
    assert smallest.bisect(lambda mib: False) is None


def test_the_smallest_guests_stay_with_the_results(tmp_path: Path) -> None:
    found = {"release": "6.12-s390x", "mib": 88, "available_mib": 60, "userland_mib": 13.8}
    results = matrix.Results(tmp_path / "matrix.json")
    results.enter_smallest("s390x", {**found, "less": "panic", "measured": "2026-01-02"})
    ways = {"fentry": {"verdict": "absent", "reason": "no such thing"}}
    done = {"arch": "amd64", "series": "6.1", "flavour": "rt-amd64", "release": PACKAGE.release, "ways": ways}
    matrix.Results(tmp_path / "matrix.json").enter(KERNEL, done)
    text = (tmp_path / "matrix.md").read_text()
    assert "| s390x 6.12-s390x | 88 MiB | 60 MiB | 13.8 MiB | panic | 2026-01-02 |" in text


def test_a_table_that_was_published_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = table.Entry("ab12", PACKAGE.release, None, None, "layout", {"tcp_connect": 7}, {})
    published: list[table.Entry | None] = [None]
    monkeypatch.setattr(tables, "committed", lambda _: published[0])
    monkeypatch.setattr(tables, "generated", lambda _: tmp_path)
    monkeypatch.setattr(tables, "entries", lambda _: (then,))
    ways = {"fentry": {"verdict": "absent", "reason": "no such thing"}}
    told = {"origin": "generated", "build_id": "ab12", "kind": "btf"}
    results = matrix.Results(tmp_path / "matrix.json")
    done = {"arch": "amd64", "series": "6.1", "flavour": "rt-amd64", "release": PACKAGE.release}
    results.enter(KERNEL, {**done, "ways": ways, "table": told})
    for entry, origin in (
        (None, "generated"),
        (then._replace(layout="another"), "generated"),
        (then._replace(btf_ids={"tcp_connect": 8}), "generated"),
        (then, "committed"),
    ):
        published[0] = entry
        results.settle(KERNEL)
        assert f"btf, {origin} |" in (tmp_path / "matrix.md").read_text()
