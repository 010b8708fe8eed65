"""Scenarios as what is kept of them: numbers, and how a table tells them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.place import Json

from .play import Outcome


def result(outcome: Outcome) -> Json:
    """A run as what is kept of it."""
    return {
        "ways": sorted(outcome.ways),
        "scenarios": {
            name: {
                "sockets": verdict.sockets,
                "events": verdict.events,
                "right": verdict.right,
                "wrong": len(verdict.wrong),
                "missed": len(verdict.missed),
                "odd": len(verdict.odd),
                "unknown": verdict.unknown,
                "naive": verdict.naive,
                "unseen": verdict.unseen,
                "skipped": verdict.skipped,
            }
            for name, verdict in outcome.verdicts.items()
        },
    }


def cell(result: Json | None) -> str:
    """What the table says of one scenario on one kernel."""
    if result is None:
        return ""
    if result["skipped"]:
        return f"skipped: {result['skipped']}"
    if not result["events"]:
        return "no events"
    words = [f"**{result['right']} / {result['events']}** ({result['naive']})"]
    words += [f"{number} unknown: {reason}" for reason, number in sorted(result["unknown"].items())]
    words += [f"{result['wrong']} WRONG"] if result["wrong"] else []
    words += [f"{result['missed']} MISSED"] if result["missed"] else []
    words += [f"{result['odd']} odd"] if result["odd"] else []
    words += [f"{result['unseen']} unseen"] if result["unseen"] else []
    return ", ".join(words)


def total(results: Mapping[str, Json]) -> str:
    """The last row's cell."""
    sums = {name: sum(r[name] for r in results.values()) for name in ("events", "right", "wrong", "naive")}
    unknown = sum(sum(r["unknown"].values()) for r in results.values())
    known = max(1, sums["events"] - unknown)
    share = f"{sums['naive'] / max(1, sums['events']):.1%}"
    return (
        f"**{sums['right']} / {sums['events']}**, {sums['wrong']} wrong, {unknown} unknown; "
        f"{sums['right'] / known:.2%} of the owners named are right, the current process would be in {share}"
    )
