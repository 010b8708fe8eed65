"""docs/bench.md says what its figures say."""

from __future__ import annotations

import json
from pathlib import Path

from . import plots, report, targets
from .targets import Target


def documents() -> tuple[targets.Json, targets.Json]:
    vm, here = (json.loads((report.DOCS / f"bench/{name}.json").read_text()) for name in ("vm", "native"))
    return vm, here


def test_the_page_and_its_pictures_are_made_of_the_committed_figures(tmp_path: Path) -> None:
    vm, here = documents()
    assert report.markdown(vm, here) == (report.DOCS / "bench.md").read_text()
    plots.draw(vm, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in (report.DOCS / "bench").glob("*.svg")}
    again = tmp_path / "again"
    again.mkdir()
    plots.draw(vm, again)
    assert all((tmp_path / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_verdicts() -> None:
    assert [Target("x", value, 10).verdict for value in (None, 10, 11)] == ["not measured", "met", "**not met**"]
    assert [Target("x", value, 10, at_least=True).verdict for value in (9.9, 10)] == ["**not met**", "met"]


def test_what_failed_is_listed_and_not_in_a_table() -> None:
    vm, here = documents()
    vm["start"]["odd tool"] = {"failed": "status 1: it has\nno legs"}
    page = report.markdown(vm, here)
    assert "- start, odd tool: status 1: it has no legs" in page
    assert "| odd tool |" not in page


def test_a_page_is_made_even_if_everything_failed() -> None:
    vm, here = documents()
    for part in (part for part in vm.values() if isinstance(part, dict) and part is not vm["versions"]):
        part.update({name: {"failed": "the guest did not come up"} for name in part})
    page = report.markdown(vm, here)
    assert "- many, sockpid, fentry: the guest did not come up" in page
    assert "not measured" in page


def test_how_far_the_ground_moved() -> None:
    rows = {"1": {"moved": {"cork": -3.5, "nodelay": 2}}, "16": {"moved": {"cork": 1}}}
    assert targets.moved({"send": {"tool": rows, "other": {"failed": "it"}}}) == 3.5
    assert targets.moved({"send": {"tool": {"1": {"with": {}}}}}) is None
