"""A slice of the accuracy harness; `make accuracy` plays it whole."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.kernel.conftest import ROOT

SLICE = ["cpu-hog", "fork-child-sends", "prefork", "exec-send-exit", "synack", "tuple-reused", "mptcp-child-sends"]


@pytest.fixture(scope="module")
def played() -> dict[str, dict[str, object]]:
    arguments = [word for name in SLICE for word in ("--scenario", name)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.accuracy", "--json", "--scale", "0.3", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )
    assert done.stdout, done.stderr
    (column,) = json.loads(done.stdout).values()
    scenarios: dict[str, dict[str, object]] = column["scenarios"]
    return scenarios


@pytest.mark.parametrize("name", SLICE)
def test_wrong_is_zero(name: str, played: dict[str, dict[str, object]]) -> None:
    result = played[name]
    if result.get("skipped"):
        pytest.skip(str(result["skipped"]))
    assert result["wrong"] == 0, result
    assert result["unknown"] in (0, {}), result
    assert result["right"], result
