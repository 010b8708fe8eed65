"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run; `make fuzz` looks for new ones. No test has a time limit: machines differ.
settings.register_profile("test", deadline=None, database=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("SOCKPID_TEST_HYPOTHESIS", "test"))
