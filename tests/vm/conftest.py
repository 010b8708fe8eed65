"""Fixtures of tests that run on real kernels.

`guest` is a kernel of the lab each in turn; the marker guests("6.1/amd64", ...) narrows a test to some, and
SOCKPID_KERNELS=6.1/amd64,6.12/arm64 narrows the run. A machine that cannot run a kernel skips the test and says why;
with SOCKPID_REQUIRE_VM=1 that is a failure.
"""

from __future__ import annotations

import os

import pytest

from . import catalogue, image, packages
from .kernels import FURTHER, KERNELS, Guest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "guest" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.download)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "guest" in metafunc.fixturenames:
        names = [name for name in os.environ.get("SOCKPID_KERNELS", "").split(",") if name]
        known = {**KERNELS, **FURTHER}
        if unknown := set(names) - set(known):
            raise pytest.UsageError(f"SOCKPID_KERNELS: no kernel {', '.join(sorted(unknown))} in {', '.join(known)}")
        chosen = metafunc.definition.get_closest_marker("guests")
        fitting = [name for name in (chosen.args if chosen else KERNELS) if not names or name in names]
        metafunc.parametrize("guest", fitting, indirect=True, scope="session")


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Guest:
    """One kernel of the lab, its package fetched: the newest that the mirror delivers."""
    if missing := {**KERNELS, **FURTHER}[request.param].missing():
        unavailable(missing)
    try:
        kernel = catalogue.find(request.param)
        kernel.vmlinuz()
    except (packages.PackageError, image.ImageError) as error:
        unavailable(str(error))
    return Guest(kernel)


def unavailable(reason: str) -> None:
    """Ends a test that this machine cannot run."""
    if os.environ.get("SOCKPID_REQUIRE_VM") == "1":
        pytest.fail(f"SOCKPID_REQUIRE_VM=1, but {reason}", pytrace=False)
    pytest.skip(reason)
