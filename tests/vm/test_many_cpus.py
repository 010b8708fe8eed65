"""Many CPUs: an LRU map hands each of them elements in batches, and so has less room than it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .kernels import Guest

SCRIPT = Path(__file__).parent / "guest/many_cpus.py"
SOCKETS, CPUS = 800, 64


@pytest.mark.guests("5.10/amd64", "6.1/amd64")
def test_no_owner_is_lost_while_there_is_room(guest: Guest) -> None:
    """A tenth as many sockets as there is room for by default, made on all CPUs in turn. Kernels before 6.12 gave a CPU
    128 elements at once, however few there were."""
    command = ["python3", "-I", "-S", "/run/many_cpus.py", str(SOCKETS)]
    files = {"/run/many_cpus.py": SCRIPT.read_bytes()}
    result = guest.run(command, timeout=400, files=files, smp=CPUS, memory=1536)
    assert result.status == 0, result
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert found["cpus"] == CPUS
    assert (found["wrong"], found["unknown"]) == (0, {}), found
    assert found["sockets"] == SOCKETS
    assert not [line for line in found["said"] if "--max-sockets" in line]
