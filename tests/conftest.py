"""Settings for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples in every run; `make fuzz` looks for new ones. No test has a time limit: machines differ.
settings.register_profile("test", deadline=None, database=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("SOCKPID_TEST_HYPOTHESIS", "test"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which builds the mirrors had today, and whether the published table knows them: no result depends on it."""
    lab = sys.modules.get("tests.vm.tables")
    if lab is not None and lab.ORIGINS:
        terminalreporter.section("kernels of the lab")
        for name, origin in sorted(lab.ORIGINS.items()):
            terminalreporter.line(f"{name}: {origin}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all pages of a module. No longer: its event loop would be in the way of other modules."""
    from tests import browser

    with browser.browser() as started:
        yield started
