"""What a tool costs at the other hooks: where a connection begins and ends, and where the kernel retransmits."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

if TYPE_CHECKING:
    from tests.bench.guest import bpf_objects, hook
else:  # in the guest
    import bpf_objects
    import hook

LIFE = "/run/life"


def life(*arguments: object) -> float:
    done = subprocess.run([LIFE, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def counted(before: Any, *arguments: object) -> Dict[str, Any]:
    """What `life` prints, and the programs' time per call, with statistics on."""
    switch("1")
    start = bpf_objects.programs()
    printed = life(*arguments)
    rows = hook.called(before, start)
    switch("0")
    return {"printed": printed, "programs": rows}


def switch(value: str) -> None:
    with open("/proc/sys/kernel/bpf_stats_enabled", "w", encoding="ascii") as file:
        file.write(value)


def measure(
    command: Sequence[str],
    perf: bool = False,
    settle: Optional[float] = None,
    connections: int = 5000,
    sockets: int = 200,
) -> Dict[str, Any]:
    """ns of one connection without the tool (before and after it, see hook) and with it, and what each of its programs
    takes per call while there are connections, and retransmits."""
    earlier = life("connections", connections)
    before = set(bpf_objects.ids(bpf_objects.PROG_GET_NEXT_ID))
    with hook.attached(command, perf, settle):
        figures: Dict[str, Any] = {
            "with": life("connections", connections),
            "connections": counted(before, "connections", connections)["programs"],
            "retransmits": counted(before, "retransmits", sockets, 3),
        }
    return {**figures, "without": (earlier + life("connections", connections)) / 2}
