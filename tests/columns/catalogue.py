"""The columns of docs/accuracy.md: which kernels, how they preempt, on how many CPUs, by which mechanisms."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tests.place import Json, Somewhere

NATIVE_EVENTS = 1_000_000
GUEST_EVENTS = 20_000


@dataclass(frozen=True)
class Storms:
    """Storms somewhere until so many events were judged. seed: of the first; the next ones follow.

    seconds, processes: of one storm. cost: seconds that all take about, on two idle cores.
    """

    where: Somewhere
    seed: int
    events: int = GUEST_EVENTS
    seconds: float = 100.0
    processes: int = 3
    cost: float = 150.0

    @property
    def name(self) -> str:
        return f"storms, {self.where.name}"

    @property
    def parameters(self) -> Json:
        """Results of other ones are not added to its results."""
        return {"where": asdict(self.where), "seconds": self.seconds, "processes": self.processes}


@dataclass(frozen=True)
class Scenarios:
    """All scenarios, once. scale: times the usual number of sockets. cost: see Storms."""

    where: Somewhere
    scale: float = 0.3
    cost: float = 240.0

    @property
    def name(self) -> str:
        return f"scenarios, {self.where.name}"

    @property
    def parameters(self) -> Json:
        return {"where": asdict(self.where), "scale": self.scale}


Job = Storms | Scenarios

HERE = Somewhere()
GUESTS = (
    Somewhere("5.10/amd64"),
    Somewhere("6.1/amd64"),
    Somewhere("6.1/amd64", smp=64),
    Somewhere("6.1/amd64", attach="fentry", deny="lsm"),
    Somewhere("6.1/amd64", attach="raw_tp", deny="lsm"),
    Somewhere("6.1/amd64", attach="kprobe-pmu", deny="lsm"),
    Somewhere("6.1/amd64", attach="kprobe-tracefs", deny="lsm"),
    Somewhere("6.12/amd64"),
    Somewhere("6.12/amd64", append="preempt=full"),
    Somewhere("6.12/amd64", append="preempt=none"),
    Somewhere("6.12/amd64/rt-amd64"),
    Somewhere("6.18/amd64"),
    Somewhere("7.2/amd64"),
    Somewhere("7.2/amd64", smp=1),
    Somewhere("7.2/amd64", append="preempt=full"),
    Somewhere("7.2/amd64", append="preempt=none"),
    Somewhere("7.2/amd64", attach="fentry", deny="lsm"),
    Somewhere("6.12/arm64"),
    Somewhere("6.12/armhf"),
    Somewhere("6.12/ppc64el"),
    Somewhere("6.12/riscv64"),
    Somewhere("6.12/s390x"),
)
SCENARIOS = (
    Somewhere("6.1/amd64", attach="fentry", deny="live-btf,lsm"),
    Somewhere("6.1/amd64", attach="kprobe-pmu", deny="live-btf,lsm"),
    Somewhere("6.12/amd64"),
    Somewhere("7.2/amd64"),
)
SHAPES = (1, 2, 3, 4, 5)
"""Seeds that the guests begin with, in turn: plain, plain, restarted, restarted and kept, a small map."""

SLOW = {"6.12/arm64": 150.0, "6.12/armhf": 150.0, "6.12/ppc64el": 150.0, "6.12/riscv64": 400.0, "6.12/s390x": 150.0}
"""Seconds of a storm where it takes that much for as many events. One long storm is cheaper than two boots."""


def _storms(where: Somewhere, seed: int) -> Storms:
    seconds = SLOW.get(where.kernel or "")
    return Storms(where, seed, seconds=seconds, cost=1.5 * seconds) if seconds else Storms(where, seed)


ALONE: tuple[Job, ...] = (
    Storms(HERE, 1, NATIVE_EVENTS, 38.0, 6, 800.0),
    Scenarios(HERE, 1.0),
)
"""Played with nothing beside."""
TOGETHER: tuple[Job, ...] = (
    *(_storms(where, SHAPES[index % len(SHAPES)]) for index, where in enumerate(GUESTS)),
    *map(Scenarios, SCENARIOS),
)
