"""Which PID does each tool print? All of them watch the same scenarios at once, in which it is known whose a socket is.

The scenarios are those of tests/accuracy. What the tools print is cut into a part for each scenario, and returned as it
is with the truth; it is judged outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from tests.accuracy.field.catalogue import CATALOGUE
from tests.accuracy.field.driver import Stage
from tests.accuracy.field.processes import me, rename
from tests.accuracy.field.scenario import Run, Scenario
from tests.accuracy.field.sockets import connect, listener, send_two

if TYPE_CHECKING:
    from tests.bench.guest import hook
else:  # in the guest
    import hook

STAGE = "/run/pids"
EARLY = "before-probe"
STAYS = 120.0
"""Seconds that the sockets of EARLY retransmit: bcc alone takes twelve to attach."""
SOCKET = ("scenario", "saddr", "sport", "daddr", "dport")
QUIET = 1.5
"""Seconds after which a tool has printed what it had to."""


class Terminal:
    """What a tool prints, to a terminal, so that it does so line by line."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._text = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                arrived = os.read(self._ours, 1 << 16)  # a statement of its own: take() may come meanwhile
                self._text += arrived

    def take(self) -> str:
        text, self._text = self._text, b""
        return text.decode("utf-8", "replace").replace("\r\n", "\n")


def early(run: Run) -> None:
    peer = listener()
    for share in run.shares(4):
        run.spawn(_stays, run, peer.getsockname(), share)
    run.wait()


def _stays(run: Run, peer: Any, count: int) -> None:
    rename(f"acc-{os.getpid()}")
    opened = [connect(peer) for _ in range(count)]
    for each in opened:
        run.tell(each, [me()])
        send_two(each)
    run.rest(STAYS)


def measure(tools: Dict[str, Sequence[Any]], scenarios: Sequence[str], scale: float) -> Dict[str, Any]:
    """tools: by name their command, `perf` and `settle` of hook.attached()."""
    os.makedirs(STAGE, exist_ok=True)
    stage = Stage(STAGE, scale, own_machine=True)
    terminals = {name: Terminal() for name in tools}
    printed: Dict[str, Dict[str, str]] = {name: {} for name in tools}

    def cut(scenario: Optional[str]) -> None:
        time.sleep(QUIET)
        for name, terminal in terminals.items():
            text = terminal.take()
            if scenario is not None:
                printed[name][scenario] = text

    before: Scenario = CATALOGUE[EARLY]._replace(body=early)
    child = stage.start(before)
    stage.wait_for(before)
    with contextlib.ExitStack() as stack:
        for name, (command, perf, settle) in tools.items():
            stack.enter_context(hook.attached(command, perf, settle, terminals[name].theirs))
        cut(None)
        time.sleep(STAYS / 2)
        cut(EARLY)
        stage.finish(child)
        cut(None)
        for name in scenarios:
            stage.finish(stage.start(CATALOGUE[name]))
            cut(name)
    with open(f"{STAGE}/truth.jsonl", encoding="utf-8") as file:
        truth = [json.loads(line) for line in file]
    owners = [
        {**{name: line[name] for name in SOCKET}, "pids": [o["pid"] for o in line["owners"]]}
        for line in truth
        if line["what"] == "owner"
    ]
    odd = [line for line in truth if line["what"] in ("error", "skip")]
    return {"owners": owners, "odd": odd, "printed": printed}
