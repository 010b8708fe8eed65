"""Plays one column, as far as the store does not have it yet."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.accuracy import play as scenarios
from tests.accuracy import results as of_scenarios
from tests.accuracy.judge import PROBE
from tests.place import Played
from tests.storm import play as storms
from tests.storm import results as of_storms
from tests.storm.plan import Plan
from tests.vm.qemu import GuestError

from .catalogue import Job, Scenarios, Storms
from .store import Store

BOOTS = 3
"""So often may a guest give no result, in a row: one boot in some dozens dies on a loaded host."""
FEW = 50
"""A storm that gave no more events than this was none."""
SHOWN = 2

Tell = Callable[[str], None]
T = TypeVar("T")


class ColumnError(Exception):
    """A column of which nothing came. The message says why."""


def play(job: Job, store: Store, tell: Tell, stop: threading.Event) -> None:
    """Until the column is whole, or stop is set. Raises ChangedError, ColumnError, or whatever came in the way."""
    if isinstance(job, Scenarios):
        _scenarios(job, store, tell, stop)
        return
    fruitless = 0
    for seed in itertools.count(job.seed):
        if stop.is_set() or store.share(job) >= 1:
            return
        if seed not in store.parts(job):
            fruitless = 0 if _storm(job, seed, store, tell, stop) else fruitless + 1
            if fruitless >= BOOTS:
                raise ColumnError(f"{fruitless} storms in a row gave next to no events")


def _storm(job: Storms, seed: int, store: Store, tell: Tell, stop: threading.Event) -> bool:
    """Whether it gave as many events as a storm should."""
    plan = Plan.of(seed, job.seconds, job.processes, slow=job.where.kernel is not None)
    outcome = _boots(lambda: storms.storm(plan, job.where), tell, stop)
    if stop.is_set():
        return False  # what was interrupted is no result
    store.check()
    part = of_storms.result(plan, outcome)
    for what, texts in outcome.verdict.examples.items():
        for text in texts[:SHOWN]:
            tell(f"{what} ({outcome.verdict.faults[what]}): {text}")
    if not outcome.verdict.ok:
        tell(f"plan {plan.json()}")
        tell(f"raw files in {_save(store, job, seed, outcome.played)}")
    store.enter(job, seed, part)
    tell(f"seed {seed}: {of_storms.line(part)}")
    return bool(part["events"] >= min(FEW, job.events))


def _scenarios(job: Scenarios, store: Store, tell: Tell, stop: threading.Event) -> None:
    if store.share(job) >= 1:
        return
    outcome = _boots(lambda: scenarios.play(job.where, job.scale), tell, stop)
    if stop.is_set():
        return
    store.check()
    part = of_scenarios.result(outcome)
    for text in scenarios.findings(outcome):
        tell(text)
    if PROBE in outcome.verdicts:
        raise ColumnError(f"the probe did not stay: {outcome.played.said[-2000:]}")
    if not outcome.ok:
        tell(f"raw files in {_save(store, job, 0, outcome.played)}")
    store.enter(job, 0, part)
    tell(of_scenarios.total(part["scenarios"]))


def _boots(played: Callable[[], T], tell: Tell, stop: threading.Event) -> T:
    """What was played; again, if the guest dies. Raises GuestError if it always does."""
    for _ in range(BOOTS - 1):
        try:
            return played()
        except GuestError as error:
            if stop.is_set():
                raise
            tell(f"once more: {error}")
    return played()


def _save(store: Store, job: Job, seed: int, played: Played) -> Path:
    directory = store.path(job).with_suffix("") / str(seed)
    played.save(directory)
    return directory
