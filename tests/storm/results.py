"""What storms have found so far, by place and runtime, in a file that each run adds to."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .plan import Plan
from .play import Outcome

Json = dict[str, Any]
NUMBERS = ("events", "right", "held", "stale", "old_names", "naive", "certain", "unjudged", "strangers")
COUNTERS = ("faults", "unknown", "doubted", "doubted_wrong", "kinds", "how")


def result(plan: Plan, outcome: Outcome) -> Json:
    """A storm as what the file keeps of it."""
    verdict = outcome.verdict
    numbers: Json = {name: getattr(verdict, name) for name in NUMBERS}
    counters: Json = {name: dict(sorted(getattr(verdict, name).items())) for name in COUNTERS}
    sizes: Json = {"operations": outcome.history.operations, "processes": len(outcome.history.programs)}
    sizes |= {"sockets": len(outcome.history.sockets), "lost": outcome.played.lost, "seconds": plan.seconds}
    hooks = outcome.played.doctor.get("hooks", ())
    ways = Counter(str(hook["attached"]).split(maxsplit=1)[0] for hook in hooks if hook["attached"])
    return {**numbers, **counters, **sizes, "hooks": dict(ways)}


class Results:
    """Columns by name; of each the results by the runtime's digest, and of these by seed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.columns: Json = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}

    def seeds(self, name: str, digest: str) -> Json:
        """The results of a column, by seed."""
        found: Json = self.columns.setdefault(name, {}).setdefault(digest, {})
        return found

    def enter(self, name: str, digest: str, seed: int, entered: Json) -> None:
        self.seeds(name, digest)[str(seed)] = entered
        if self._path:
            self._path.write_text(json.dumps(self.columns, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def total(results: Json) -> Json:
    """The sum of results."""
    summed: Json = {}
    for one in results.values():
        for key, value in one.items():
            if isinstance(value, dict):
                summed[key] = dict(Counter(summed.get(key, {})) + Counter(value))
            else:
                summed[key] = summed.get(key, 0) + value
    return summed


def line(summed: Json) -> str:
    """A result, or a sum of them, in words."""
    events = summed.get("events", 0)
    unknown = sum(summed["unknown"].values())
    named = max(1, events - unknown)
    words = [f"{events} events", f"{(summed['right'] + summed['held']) / named:.4%} of those named are right"]
    words += [
        f"current: {summed['naive'] / max(1, events):.1%}",
        f"{unknown} unknown {summed['unknown'] or ''}".strip(),
    ]
    words += [f"{summed['certain']} certain"] if summed["certain"] else []
    words += [f"doubted {summed['doubted']}, of these wrong {summed['doubted_wrong']}"] if summed["doubted"] else []
    words += [f"{summed['stale']} stale"] if summed["stale"] else []
    words += [f"{summed['lost']} lost"] if summed["lost"] else []
    words += [f"FAULTS {summed['faults']}"] if summed["faults"] else []
    return "; ".join(words)
