"""Makes a storm that finds something as small as it can be and still find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .plan import ALWAYS, Plan

TRIES = 3
"""A storm is a matter of luck: so often is a smaller one tried before it is said to find nothing."""
Finds = Callable[[Plan], bool]


def smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with a little less, those first that leave out most."""
    if plan.restarts:
        yield replace(plan, restarts=0, keep=False)
        if plan.restarts > 1:
            yield replace(plan, restarts=1)
    if plan.burners:
        yield replace(plan, burners=0)
        yield replace(plan, burners=plan.burners // 2)
    if plan.older:
        yield replace(plan, older=0.0)
    others = [name for name in plan.kinds if name not in ALWAYS]
    size = len(others)
    while size:
        for at in range(0, len(others), size):
            without = set(others[at : at + size])
            yield replace(plan, kinds=tuple(name for name in plan.kinds if name not in without))
        size //= 2
    if plan.processes > 1:
        yield replace(plan, processes=max(1, plan.processes // 2))
        yield replace(plan, processes=plan.processes - 1)
    if plan.seconds > 1:
        yield replace(plan, seconds=round(plan.seconds / 2, 1))
    if plan.pool > 4:
        yield replace(plan, pool=plan.pool // 2)


def shrink(plan: Plan, finds: Finds, budget: int = 200) -> Plan:
    """The smallest plan found with so many storms. `finds` plays one, and says whether it finds what it should."""
    played = 0
    progress = True
    nothing: set[Plan] = set()
    while progress:
        progress = False
        for candidate in smaller(plan):
            if candidate in nothing:
                continue
            for _ in range(TRIES):
                if played >= budget:
                    return plan
                played += 1
                if finds(candidate):
                    plan, progress = candidate, True
                    break
            if progress:
                break
            nothing.add(candidate)
    return plan
