"""A job that fails takes no other with it, and what was measured is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vm import packages
from tests.vm.kernels import Kernel
from tests.vm.qemu import GuestError, GuestPanic

from . import machine, peers, report, vm
from .machine import Job

PACKAGE = packages.KernelPackage("linux-image-6.1.0-1-test", "6.1.1-1", "6.1.0-1-test", "6.1", "cloud-amd64")


def played(jobs: list[Job], *_: Any, **__: Any) -> list[tuple[str, dict[str, Any]]]:
    ((name, _kind, count, arguments),) = jobs
    if name == "dies":
        raise GuestPanic("Kernel panic - not syncing", "")
    if name == "is silent":
        raise GuestError("no result", "")
    return [(name, figures) for figures in arguments["runs"][:count]]


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vm, "RESULT", tmp_path / "bench/vm.json")
    monkeypatch.setattr(vm, "play", played)
    monkeypatch.setattr(report, "write", lambda: None)
    monkeypatch.setattr(peers, "versions", dict)
    monkeypatch.setattr(machine, "kernel", lambda: Kernel("bookworm", "amd64", "cloud-amd64", "6.1"))
    monkeypatch.setattr(packages, "find_kernel", lambda *_: PACKAGE)
    return tmp_path / "bench/vm.json"


def planned(*names: str, runs: tuple[dict[str, Any], ...] = ({"cpu_s": 1.0},)) -> list[vm.Planned]:
    return [vm.Planned("start", (name, "watch", len(runs), {"runs": runs})) for name in names]


def test_the_rest_goes_on(result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(vm, "planned", lambda: planned("first", "dies", "is silent", "last"))
    monkeypatch.setattr("sys.argv", ["vm"])
    assert vm.main() == 1
    figures = json.loads(result.read_text())["start"]
    assert figures["first"] == figures["last"] == {"cpu_s": 1.0}
    assert "Kernel panic" in figures["dies"]["failed"]
    assert "no result" in figures["is silent"]["failed"]
    assert "4/4 start: " in capsys.readouterr().err


def test_what_was_measured_before_stays(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result.parent.mkdir()
    result.write_text('{"start": {"other": {"cpu_s": 2}}}')
    monkeypatch.setattr(vm, "planned", lambda: planned("first", "not this"))
    monkeypatch.setattr("sys.argv", ["vm", "--only", "first"])
    assert vm.main() == 0
    assert json.loads(result.read_text())["start"] == {"first": {"cpu_s": 1.0}, "other": {"cpu_s": 2}}


def test_a_run_that_failed_is_left_out_of_the_median() -> None:
    assert vm.summed([{"cpu_s": 1}, {"failed": "x"}, {"cpu_s": 5}, {"cpu_s": 2}]) == {"cpu_s": 2}
    assert vm.summed([{"failed": "x"}, {"failed": "y"}]) == {"failed": "y"}
