"""What became of the events of a storm."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

EXAMPLES = 20


@dataclass
class Verdict:
    """What became of a storm, or of several.

    wrong: named somebody who is not right, and was not in doubt. missed: named nobody, though a hook saw a use.
    contradicted: says that the named one does not have it open, though it surely has. odd: whatever else is not true.
    stale: names the last user that a hook saw, who has closed it; another one used it later in a way that none sees.
    A fault only where the owner is said to be certain. doubted: by doubt, the events that are not certain;
    doubted_wrong: those of them that name a wrong one. refused: starts of the probe that came to no end, which truly
    said why. unjudged: events of sockets whose beginning is not in the log.
    """

    events: int = 0
    right: int = 0
    held: int = 0
    stale: int = 0
    naive: int = 0
    old_names: int = 0
    certain: int = 0
    refused: int = 0
    unjudged: int = 0
    strangers: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    unknown: collections.Counter[str] = field(default_factory=collections.Counter)
    doubted: collections.Counter[str] = field(default_factory=collections.Counter)
    doubted_wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    how: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.faults

    def fault(self, what: str, text: str) -> None:
        self.faults[what] += 1
        kept = self.examples.setdefault(what, [])
        if len(kept) < EXAMPLES:
            kept.append(text)
