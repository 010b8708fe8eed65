"""A storm as what is kept of it: numbers, which can be added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.place import Json

from .plan import Plan
from .play import Outcome

NUMBERS = ("events", "right", "held", "stale", "old_names", "naive", "certain", "refused", "unjudged", "strangers")
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


def total(results: Iterable[Json]) -> Json:
    """The sum of results. The hooks are those of the last one."""
    summed: Json = {"storms": 0}
    for one in results:
        summed["storms"] += 1
        for key, value in one.items():
            if key == "hooks":
                summed[key] = value
            elif isinstance(value, dict):
                summed[key] = dict(Counter(summed.get(key, {})) + Counter(value))
            else:
                summed[key] = summed.get(key, 0) + value
    return summed


def line(summed: Json) -> str:
    """A result, or a sum of them, in words."""
    events = summed.get("events", 0)
    unknown = sum(summed["unknown"].values())
    named = max(1, events - unknown)
    words = [f"{events} events"]
    words += [f"{(summed['right'] + summed['held'] + summed['stale']) / named:.4%} of those named are right"]
    words += [
        f"current: {summed['naive'] / max(1, events):.1%}",
        f"{unknown} unknown {summed['unknown'] or ''}".strip(),
    ]
    words += [f"{summed['certain']} certain"] if summed["certain"] else []
    words += [f"doubted {summed['doubted']}, of these wrong {summed['doubted_wrong']}"] if summed["doubted"] else []
    words += [f"{summed['stale']} stale"] if summed["stale"] else []
    words += [f"{summed['lost']} lost"] if summed["lost"] else []
    words += [f"{summed['refused']} starts refused"] if summed["refused"] else []
    words += [f"FAULTS {summed['faults']}"] if summed["faults"] else []
    return "; ".join(words)
