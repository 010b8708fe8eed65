"""What a storm is made of. A seed gives one; a storm that finds something is made smaller by changing it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .field import ending, handing, noise, opening, sockmap, using
from .field.kinds import KINDS

ENTERED = (ending, handing, noise, opening, sockmap, using)
"""Imported for the kinds that they enter."""
ALWAYS = ("connect", "send", "read-inbox")
LEFT_OUT = 0.15
"""Share of the kinds that a seed does without: what many do at once hides what few would show."""
USUAL_MAX = 8192
KEPT = Path(__file__).with_name("kept.json")


@dataclass(frozen=True)
class Plan:
    """seconds: that the probe sees of it, all its runs together. older: seconds before the probe."""

    seed: int
    seconds: float
    processes: int
    kinds: tuple[str, ...]
    pool: int = 100
    pause: float = 0.05
    older: float = 1.0
    restarts: int = 0
    keep: bool = False
    max_sockets: int = USUAL_MAX
    calm: bool = False
    burners: int = 0

    @classmethod
    def of(
        cls, seed: int, seconds: float, processes: int, without: frozenset[str] = frozenset(), slow: bool = False
    ) -> Plan:
        """The storm that belongs to a seed. slow: on an emulated machine."""
        chance = random.Random(f"plan {seed}")
        kinds = tuple(
            name for name in sorted(KINDS) if (chance.random() >= LEFT_OUT or name in ALWAYS) and name not in without
        )
        plan = cls(seed, seconds, processes, kinds, pool=chance.choice((8, 15, 25, 40)), calm=seed % 3 != 1)
        if slow:
            plan = replace(plan, pool=chance.choice((6, 12, 24)), pause=0.3, calm=True)
        shape = seed % 6
        if shape == 3:
            return replace(plan, restarts=2)
        if shape == 4:
            return replace(plan, restarts=2, keep=True)
        if shape == 5:
            return replace(plan, max_sockets=512)
        return replace(plan, max_sockets=1 << 16, burners=4 if shape == 0 else 0)

    def arguments(self) -> list[str]:
        """For the field's command line."""
        named: dict[str, object] = {
            "seed": self.seed,
            "seconds": self.seconds,
            "processes": self.processes,
            "pool": self.pool,
            "pause": self.pause,
            "older": self.older,
            "restarts": self.restarts,
            "burners": self.burners,
            "kinds": ",".join(self.kinds),
        }
        words = [word for name, value in named.items() for word in (f"--{name}", str(value))]
        return [
            *words,
            *(["--keep"] if self.keep else []),
            *(["--calm"] if self.calm else []),
            "--probe=--max-sockets",
            f"--probe={self.max_sockets}",
        ]

    @classmethod
    def kept(cls) -> dict[str, Plan]:
        """Storms that have found something, by what it was."""
        return {each["found"]: cls.parse(each["plan"]) for each in json.loads(KEPT.read_text(encoding="utf-8"))}

    def json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Plan:
        """Raises TypeError for keys that a plan does not have."""
        return cls(**{**document, "kinds": tuple(document["kinds"])})
