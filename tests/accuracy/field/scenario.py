"""What a scenario is: a function that makes real processes retransmit, and says beforehand who owns what."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import sockets
from .processes import Process, fork, process

SECONDS = 3.3  # the loss probe, and timeouts after 0.2, 0.6, 1.4 and 3.0 s
ALIVE = ("rto", "tlp", "other")  # kinds of retransmit when nothing is answered


class Skip(Exception):
    """A scenario that this machine cannot play, and why."""


class Scenario(NamedTuple):
    """sockets: how many at scale 1. hooks: what tells the owner; if none of these is attached, unknown is right.

    probe: further arguments that its probe needs, else it shares one. before: begins before the probe does.
    """

    name: str
    what: str
    body: Callable[[Run], None]
    sockets: int
    hooks: Tuple[str, ...]
    how: Tuple[str, ...]
    kinds: Tuple[str, ...]
    unknown: Tuple[str, ...]
    probe: Tuple[str, ...]
    before: bool


SCENARIOS: Dict[str, Scenario] = {}


def scenario(
    what: str,
    *,
    sockets: int = 80,
    hooks: Sequence[str] = ("connect", "send"),
    how: Sequence[str] = ("connect", "send"),
    kinds: Sequence[str] = ALIVE,
    unknown: Sequence[str] = (),
    probe: Sequence[str] = (),
    before: bool = False,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Enters a function into SCENARIOS under its own name. The keywords are what its tell() says if not told else.

    hooks: of these any one suffices to know the owner. how, kinds: what an event may say. unknown: reasons for
    which an owner may stay unknown.
    """

    def enter(body: Callable[[Run], None]) -> Callable[[Run], None]:
        name = body.__name__.strip("_").replace("_", "-")
        SCENARIOS[name] = Scenario(
            name, what, body, sockets, tuple(hooks), tuple(how), tuple(kinds), tuple(unknown), tuple(probe), before
        )
        return body

    return enter


class Run:
    """One run of a scenario: its children, which end with it, and where it writes the truth."""

    def __init__(self, played: Scenario, sockets_wanted: int, truth: int, own_machine: bool) -> None:
        self.scenario = played
        self.sockets = max(1, sockets_wanted)
        self.own_machine = own_machine
        self._truth = truth
        self._since = time.time_ns()
        self._children: Dict[int, Process] = {}
        self._kept: List[socket.socket] = []

    @property
    def name(self) -> str:
        return self.scenario.name

    def shares(self, processes: int = 8) -> List[int]:
        """The sockets dealt out to at most so many processes."""
        processes = min(processes, self.sockets)
        return [self.sockets // processes + (i < self.sockets % processes) for i in range(processes)]

    def spawn(self, body: Callable[..., None], *arguments: Any) -> int:
        """Runs body in a child process."""
        child = fork(lambda: body(*arguments))
        self._children[child] = process(child)
        return child

    def keep(self, opened: socket.socket) -> socket.socket:
        """Keeps a socket of ours open until the scenario ends, with a reset that frees what its peer left behind."""
        self._kept.append(opened)
        return opened

    def tell(
        self,
        opened: socket.socket,
        owners: Sequence[Process],
        *,
        peer: Optional[sockets.Address] = None,
        local: Optional[sockets.Address] = None,
        **other: Any,
    ) -> None:
        """Writes who owns a socket. peer: where it is going to be connected; local: if it is not bound to it."""
        self._write("owner", opened, local or opened.getsockname(), peer or opened.getpeername(), owners, other)

    def _write(
        self,
        what: str,
        opened: socket.socket,
        local: Tuple[Any, ...],
        peer: Tuple[Any, ...],
        owners: Sequence[Process],
        other: Dict[str, Any],
    ) -> None:
        folded = [address[7:] if address.startswith("::ffff:") else address for address in (local[0], peer[0])]
        line = {
            "what": what,
            "scenario": self.name,
            "netns": os.stat("/proc/self/ns/net").st_ino,
            "family": "inet6" if ":" in folded[1] else "inet",
            "saddr": folded[0],
            "sport": local[1],
            "daddr": folded[1],
            "dport": peer[1],
            "owners": [owner._asdict() for owner in owners],
            "hooks": self.scenario.hooks,
            "how": self.scenario.how,
            "kinds": self.scenario.kinds,
            "unknown": self.scenario.unknown,
            "inode": os.fstat(opened.fileno()).st_ino,
            "since_ns": self._since,
            **other,
        }
        os.write(self._truth, (json.dumps(line) + "\n").encode())

    def count(self, opened: socket.socket) -> None:
        """Writes how often the kernel says that it retransmitted, so that a missing event is found."""
        total = sockets.retransmitted(opened)
        if total is not None:
            self._write("count", opened, opened.getsockname(), opened.getpeername(), (), {"total_retrans": total})

    def rest(self, seconds: float = SECONDS) -> None:
        """Lets the kernel retransmit."""
        time.sleep(seconds)

    def wait(self) -> None:
        """Waits for all children. Raises if one of them failed."""
        for child in list(self._children):
            self.join(child)

    def join(self, child: int) -> None:
        """Waits for one child. Raises if it failed."""
        if self._reap(child):
            raise RuntimeError(f"{self.name}: a process of the scenario failed")

    def _reap(self, child: int) -> int:
        """Waits for a child and writes that it ended."""
        status = os.waitpid(child, 0)[1]
        line = {"what": "ended", "scenario": self.name, "at_ns": time.time_ns(), **self._children.pop(child)._asdict()}
        os.write(self._truth, (json.dumps(line) + "\n").encode())
        return status

    def kill(self, child: int) -> None:
        """SIGKILL, and the child's end."""
        os.kill(child, signal.SIGKILL)
        self._reap(child)

    def close(self) -> None:
        for child in list(self._children):
            self.kill(child)
        for opened in self._kept:
            sockets.reset(opened)
