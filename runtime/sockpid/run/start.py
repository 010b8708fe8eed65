"""From nothing to a probe that is attached and proved, with no right left that it does not need."""

from __future__ import annotations

import sys

from sockpid.event.event import Event
from sockpid.host import capability
from sockpid.probe.tracer import Tracer
from sockpid.selfcheck import selfcheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List


def say(line: str) -> None:
    print(f"sockpid: {line}", file=sys.stderr, flush=True)


def begin(tracer: Tracer, seed: bool = True) -> List[Event]:
    """Seeding and self-check. Returns the events of others that were raised meanwhile. Raises SelfCheckError."""
    waiting: List[Event] = []
    warnings = tracer.seed() if seed else []
    results = selfcheck.run(tracer, waiting)
    warnings += [f"self-check: {line}" for line in selfcheck.demand(results, tracer.offsets.needs_proof)]
    for line in warnings + tracer.collection.flaws():
        say(line)
    if tracer.offsets.is_new:
        from sockpid.offsets import kept

        kept.keep(tracer.collection.image, tracer.kernel, tracer.offsets)
    return [tracer.resolve(seen) for seen in waiting]


def give_up_rights(tracer: Tracer, sharers: bool = False, environ: bool = False, summary: bool = False) -> None:
    """Gives up every capability that nothing from here on needs."""
    keep = capability.for_run(sharers=sharers, environ=environ, summary=summary)
    dropped = capability.drop(keep | capability.for_maps(tracer.raised))
    if dropped.threads:
        say(f"{dropped.threads} threads that had started before keep {', '.join(capability.names(dropped.gone))}")


def tell(tracer: Tracer) -> None:
    how = ", ".join(f"{name}: {link or 'none'}" for name, link in tracer.collection.mechanisms().items())
    say(f"offsets from {tracer.offsets.source}; {how}")
