"""A slice of `make soak`: all outputs at once, while sockets and processes come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.bench import soak
from tests.kernel.conftest import ROOT


def test_nothing_is_wrong_or_lost_while_sockets_come_and_go() -> None:
    inside = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "soak"]
    done = subprocess.run(
        [*inside, sys.executable, "-m", "tests.bench.soak", "--seconds", "12"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/runtime"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert not soak.complaints(result, warm=False), result
    assert result["sockets"] >= 60
    assert result["right"] >= 2 * result["sockets"]
    assert result["naive"] < result["right"] / 2
