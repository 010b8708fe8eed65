"""What a process of the storm can do in one step, by name. Shrinking a storm leaves some out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, NamedTuple

if TYPE_CHECKING:
    from .process import Process

Step = Callable[["Process"], None]


class Kind(NamedTuple):
    """weight: how often, against the others."""

    name: str
    weight: float
    step: Step
    what: str


KINDS: Dict[str, Kind] = {}


def kind(weight: float) -> Callable[[Step], Step]:
    """Enters a function into KINDS under its own name."""

    def enter(step: Step) -> Step:
        name = step.__name__.strip("_").replace("_", "-")
        KINDS[name] = Kind(name, weight, step, (step.__doc__ or "").splitlines()[0])
        return step

    return enter
