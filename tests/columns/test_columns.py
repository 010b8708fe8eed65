"""Columns are gone on with where they were left, and never hold results of two runtimes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import place
from tests.place import Somewhere
from tests.storm import play as storms
from tests.storm.results import total
from tests.vm.kernels import FURTHER, KERNELS
from tests.vm.qemu import GuestError

from . import job as jobs
from . import report, store
from .catalogue import ALONE, SCENARIOS, TOGETHER, Scenarios, Storms
from .store import ChangedError, Store, faults

PER_STORM = 400
COLUMN = Storms(Somewhere("6.1/amd64"), 4, events=1000, seconds=5.0)


def part(events: int = PER_STORM, **wrong: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("right", "held", "stale", "naive", "certain", "refused", "lost", "operations"), 0)
    counters: dict[str, dict[str, int]] = {"unknown": {}, "doubted": {}, "doubted_wrong": {}, "faults": wrong}
    return {**numbers, **counters, "events": events, "hooks": {"lsm": 8}}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the storms that are played, which find nothing."""
    seeds: list[int] = []
    verdict = SimpleNamespace(ok=True, examples={}, faults={})

    def storm(plan: Any, where: Somewhere) -> Any:
        seeds.append(plan.seed)
        return SimpleNamespace(verdict=verdict, played=SimpleNamespace(said=""))

    monkeypatch.setattr("tests.storm.play.storm", storm)
    monkeypatch.setattr("tests.storm.results.result", lambda plan, outcome: part())
    return seeds


def play(kept: Store, column: Storms = COLUMN) -> None:
    jobs.play(column, kept, print, threading.Event())


def test_storms_until_there_are_enough_events(tmp_path: Path, played: list[int]) -> None:
    kept = Store(tmp_path)
    play(kept)
    assert played == [4, 5, 6]
    assert kept.share(COLUMN) == 1
    summed = kept.summed(COLUMN)
    assert summed is not None
    assert (summed["events"], summed["storms"]) == (1200, 3)


def test_goes_on_where_it_was_left(tmp_path: Path, played: list[int]) -> None:
    Store(tmp_path).enter(COLUMN, 5, part())
    play(Store(tmp_path))
    play(Store(tmp_path))
    assert played == [4, 6]


def test_other_parameters_begin_anew(tmp_path: Path, played: list[int]) -> None:
    Store(tmp_path).enter(Storms(COLUMN.where, 4, events=1000, seconds=6.0), 5, part())
    play(Store(tmp_path))
    assert played == [4, 5, 6]


def test_another_runtime_begins_anew(tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    play(Store(tmp_path))
    monkeypatch.setattr(store, "runtime_digest", lambda: "other")
    assert Store(tmp_path).summed(COLUMN) is None


def test_a_runtime_that_changes_meanwhile(tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Store(tmp_path)
    monkeypatch.setattr(store, "judges_digest", lambda: "other")
    with pytest.raises(ChangedError):
        play(kept)
    assert kept.share(COLUMN) == 0


def test_digests_are_of_what_is_there() -> None:
    """A pattern that matches nothing would make all runtimes the same."""
    for pattern in (*place.PROGRAMS, *place.JUDGES):
        assert list(place.ROOT.glob(pattern)), pattern
    assert place.runtime_digest() != place.judges_digest()


def test_a_guest_that_dies_is_booted_again(tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    storm, deaths = storms.storm, iter([True, False, True, True, False, False])

    def dies(plan: Any, where: Somewhere) -> Any:
        if next(deaths):
            raise GuestError("a panic", "")
        return storm(plan, where)

    monkeypatch.setattr("tests.storm.play.storm", dies)
    play(Store(tmp_path))
    assert played == [4, 5, 6]


def test_a_column_without_events_is_none(tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.storm.results.result", lambda plan, outcome: part(3))
    with pytest.raises(jobs.ColumnError):
        play(Store(tmp_path))
    assert len(played) == jobs.BOOTS


def test_every_column_can_be_played_and_has_a_file_of_its_own(tmp_path: Path) -> None:
    columns = [*ALONE, *TOGETHER]
    assert {column.where.kernel for column in TOGETHER} <= {*KERNELS, *FURTHER}
    assert len({column.name for column in columns}) == len(columns)
    assert len({Store(tmp_path).path(column) for column in columns}) == len(columns)


def test_the_page_says_what_is_wrong_and_what_is_missing() -> None:
    wrong = total([part(wrong=2, stale=1), part(reason=4)])
    storms = {"6.1/amd64": wrong, "7.2/amd64": None}
    scenarios = {where.name: None for where in SCENARIOS}
    page = report.markdown({"runtime": "r", "judges": "j", "storms": storms, "scenarios": scenarios})
    assert "**800 events of storms were judged: 3 name a wrong process" in page
    assert "| 6.1/amd64 | 800 | 800, 99.6250% |" in page
    assert "reason: 4; stale: 1; wrong: 2" in page
    assert "| 7.2/amd64 | not played |" in page
    assert f"Not played: {SCENARIOS[0].name};" in page
    assert faults(COLUMN, wrong) == "reason: 4, stale: 1, wrong: 2"


def test_faults_of_scenarios() -> None:
    found = {"wrong": 0, "missed": 2, "odd": 0}
    assert faults(Scenarios(SCENARIOS[0]), {"scenarios": {"a": found, "b": found}}) == "missed: 4"


def test_the_page_is_that_of_its_figures() -> None:
    page = place.ROOT / "docs/accuracy.md"
    assert page.read_text() == report.markdown(json.loads(page.with_suffix(".json").read_text()))
