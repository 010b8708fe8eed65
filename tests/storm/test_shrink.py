"""Plans, their shrinking, and what is kept of results."""

from __future__ import annotations

from typing import Any

from .field.kinds import KINDS
from .plan import ALWAYS, Plan
from .results import total
from .shrink import shrink

BIG = Plan(1, 16.0, 8, tuple(sorted(KINDS)), pool=64, restarts=2, keep=True, burners=4)


def test_a_seed_gives_the_same_plan_each_time() -> None:
    plans = [Plan.of(seed, 10, 4) for seed in range(20)]
    assert plans == [Plan.of(seed, 10, 4) for seed in range(20)]
    assert len({plan.kinds for plan in plans}) > 10
    assert any(plan.restarts and plan.keep for plan in plans)
    assert any(plan.restarts and not plan.keep for plan in plans)
    assert any(plan.burners for plan in plans)


def test_what_is_left_out_is_left_out() -> None:
    assert all("fork" not in Plan.of(seed, 10, 4, frozenset({"fork"})).kinds for seed in range(20))


def test_a_plan_survives_being_printed() -> None:
    import json

    assert Plan.parse(json.loads(BIG.json())) == BIG


def test_shrinks_to_what_it_takes() -> None:
    tried: list[Plan] = []

    def finds(plan: Plan) -> bool:
        tried.append(plan)
        return {"fork", "reuse"} <= set(plan.kinds) and plan.processes >= 3

    found = shrink(BIG, finds, budget=1000)
    assert set(found.kinds) == {*ALWAYS, "fork", "reuse"}
    assert (found.processes, found.seconds, found.restarts, found.keep) == (3, 1.0, 0, False)
    assert (found.older, found.burners) == (0.0, 0)
    assert len(tried) < 300


def test_what_needs_luck_is_tried_again() -> None:
    turns = iter(range(10_000))
    found = shrink(BIG, lambda plan: "fork" in plan.kinds and next(turns) % 3 == 2, budget=1000)
    assert set(found.kinds) == {*ALWAYS, "fork"}


def test_no_more_storms_than_allowed() -> None:
    tried: list[Plan] = []

    def finds(plan: Plan) -> bool:
        tried.append(plan)
        return False

    shrink(BIG, finds, budget=7)
    assert len(tried) == 7


def test_every_kept_plan_can_be_played() -> None:
    assert Plan.kept()
    assert all(set(plan.kinds) <= set(KINDS) for plan in Plan.kept().values())


def result(events: int, **faults: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("right", "held", "stale", "naive", "certain", "refused", "lost", "operations"), 0)
    counters: dict[str, dict[str, int]] = {"unknown": {}, "doubted": {}, "doubted_wrong": {}, "faults": faults}
    return {**numbers, **counters, "events": events}


def test_results_add_up() -> None:
    summed = total([{**result(5), "hooks": {"lsm": 8}}, {**result(7, wrong=1), "hooks": {"lsm": 8}}])
    assert (summed["storms"], summed["events"], summed["faults"]) == (2, 12, {"wrong": 1})
    assert summed["hooks"] == {"lsm": 8}
