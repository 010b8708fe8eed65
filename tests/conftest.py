"""Settings for all tests."""

from __future__ import annotations

import os
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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all pages of a module. No longer: its event loop would be in the way of other modules."""
    from tests import browser

    with browser.browser() as started:
        yield started
