"""Files from elsewhere, damaged: every reader answers, or says in one clear error what is wrong.

SOCKPID_FUZZ_EXAMPLES is the number of inputs for each reader; `make fuzz` looks for new ones for as long as is wanted.
What it finds is kept in corpus/, one directory for each reader.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any, Generator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import targets
from tests.fuzz.mutation import damaged

EXAMPLES = int(os.environ.get("SOCKPID_FUZZ_EXAMPLES", "150"))
SECONDS_MAX = 60
MEMORY_MAX = 1 << 30
NAMES = [*targets.PURE, *targets.FILES]


@pytest.fixture(autouse=True)
def bounded() -> Generator[None, None, None]:
    """No input may take a minute, or a gigabyte more than there was before."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"one input took more than {SECONDS_MAX} s")

    old = signal.signal(signal.SIGALRM, too_long)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MAX, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # it says that inputs are long
@pytest.mark.parametrize("name", NAMES)
def test_damaged_input(name: str, tmp_path: Path) -> None:
    inputs = damaged(targets.seeds(name))

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def look(content: bytes) -> None:
        signal.alarm(SECONDS_MAX)
        targets.run(name, content, tmp_path)

    look()


@pytest.mark.parametrize("name", NAMES)
def test_corpus(name: str, tmp_path: Path) -> None:
    """Whatever was found once, and the well-formed inputs."""
    for content in targets.seeds(name).values():
        signal.alarm(SECONDS_MAX)
        targets.run(name, content, tmp_path)
