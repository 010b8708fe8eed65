"""Orders in which programs run: one after the other is the exception.

A program is interrupted where it stops (tests.bpf.translate). Two programs are run in every order in which each is
interrupted once; more than two at random, from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from .translate import Run

W = TypeVar("W")
Scene = Callable[[], tuple[W, Sequence[Run]]]
"""A world as it is before, and programs that are started and have not run yet."""


def advance(run: Run, steps: int) -> bool:
    """Runs on past so many stops; whether it ended."""
    try:
        for _ in range(steps):
            next(run)
    except StopIteration:
        return True
    return False


def to_the_end(run: Run) -> None:
    for _ in run:
        pass


def pairs(scene: Scene[W], stride: int = 1) -> Iterator[tuple[str, W]]:
    """Every order of two programs in which each is interrupted at most once; of so many squared, one."""
    for first in (0, 1):
        ended, i = False, 0
        while not ended:
            second_ended, j = False, i // stride % stride
            while not second_ended:
                world, runs = scene()
                one, other = runs[first], runs[1 - first]
                ended = advance(one, i)
                second_ended = advance(other, j) or ended
                to_the_end(one)
                to_the_end(other)
                yield f"program {first} stops at {i}, program {1 - first} at {j}", world
                j += stride
            i += stride


def nested(scene: Scene[W]) -> Iterator[tuple[str, W]]:
    """The first is interrupted everywhere; all others run to their ends there."""
    ended, i = False, 0
    while not ended:
        world, runs = scene()
        ended = advance(runs[0], i)
        for run in (*runs[1:], runs[0]):
            to_the_end(run)
        yield f"program 0 stops at {i}", world
        i += 1


def at_random(scene: Scene[W], times: int, seed: int = 0) -> Iterator[tuple[str, W]]:
    """Programs take turns of random lengths."""
    for n in range(seed, seed + times):
        draw = random.Random(n)
        world, runs = scene()
        left = list(runs)
        while left:
            run = draw.choice(left)
            if advance(run, draw.choice((1, 1, 2, 3, 5, 8, 13, 40))):
                left.remove(run)
        yield f"seed {n}", world


def one_after_the_other(*runs: Run) -> Run:
    """What one task or CPU does in turn, as one program."""
    for run in runs:
        yield from run
        yield "between"
    return 0
