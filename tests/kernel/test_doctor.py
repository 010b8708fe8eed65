"""What `sockpid doctor` says of this host."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    command = [sys.executable, "-m", "sockpid", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_every_hook_that_is_attached_was_seen_to_run(found: dict[str, Any]) -> None:
    """Each on its own, by what it is there for: SYN-ACKs, executions and exits included."""
    attached = {hook["hook"]: hook["seen_to_run"] for hook in found["hooks"] if hook["attached"]}
    assert {"destroy", "close", "retransmit", "synack", "connect", "listen", "send", "exec", "exit"} <= attached.keys()
    assert [name for name, seen in attached.items() if seen is not True] == []


def test_the_age_of_the_table_is_told(found: dict[str, Any]) -> None:
    table = found["table"]
    assert table is None or {"series", "kernels", "newest", "built", "has_this", "days"} <= table.keys()
    if table is not None:
        assert found["release"].startswith(table["series"])
        assert table["newer_would_change"]
