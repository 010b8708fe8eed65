"""What was played of the columns, in files that stay: a run that is killed is gone on with by the next one.

A directory holds the results of one runtime and one judge, a file those of one column, each written whole or not at
all. Another runtime, or another judge, has a directory of its own: their results never come together.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.place import Json, judges_digest, runtime_digest
from tests.storm.results import total
from tests.vm import cache

from .catalogue import Job, Scenarios, Storms


class ChangedError(Exception):
    """The runtime or the judge is not the one that the results so far are of."""


class Store:
    def __init__(self, root: Path) -> None:
        """root: the directory that holds one for each runtime and judge."""
        self.runtime, self.judges = runtime_digest(), judges_digest()
        self.directory = root / f"{self.runtime}-{self.judges}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises ChangedError if what is played now is not what this store is of."""
        if (self.runtime, self.judges) != (runtime_digest(), judges_digest()):
            raise ChangedError("the runtime or the judge has changed meanwhile: what was just played is not entered")

    def path(self, job: Job) -> Path:
        return self.directory / f"{re.sub(r'[^a-z0-9.=_]+', '-', job.name.lower())}.json"

    def parts(self, job: Job) -> Mapping[int, Json]:
        """What was played of a column with these parameters, by seed."""
        path = self.path(job)
        document: Json = json.loads(path.read_bytes()) if path.exists() else {}
        if document.get("parameters") != job.parameters:
            return {}
        return {int(seed): part for seed, part in document["parts"].items()}

    def enter(self, job: Job, seed: int, part: Json) -> None:
        with self._lock:
            parts = {str(each): found for each, found in {**self.parts(job), seed: part}.items()}
            document = {"column": job.name, "parameters": job.parameters, "parts": parts}
            cache.write(self.path(job), (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def forget(self, job: Job) -> None:
        self.path(job).unlink(missing_ok=True)

    def share(self, job: Job) -> float:
        """How much of a column is done, 0 to 1."""
        parts = self.parts(job)
        if isinstance(job, Scenarios):
            return float(bool(parts))
        events: int = sum(part["events"] for part in parts.values())
        return min(1.0, events / job.events)

    def summed(self, job: Job) -> Json | None:
        """What the document is made from; None if nothing was played."""
        parts = self.parts(job)
        if not parts:
            return None
        return total(parts.values()) if isinstance(job, Storms) else parts[0]


def faults(job: Job, summed: Json) -> str:
    """What is not as it should be in a column, in a word or two; "" if nothing."""
    if isinstance(job, Storms):
        return ", ".join(f"{what}: {number}" for what, number in sorted(summed["faults"].items()))
    sums = {what: sum(found[what] for found in summed["scenarios"].values()) for what in ("wrong", "missed", "odd")}
    return ", ".join(f"{what}: {number}" for what, number in sums.items() if number)
