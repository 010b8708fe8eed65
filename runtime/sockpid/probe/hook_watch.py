"""Do the hooks still fire? Asked now and then while the probe runs, on sockets of our own.

What a start has proved need not stay so: ftrace and kprobes can be switched off under us (kernel.ftrace_enabled,
kprobes in debugfs), and the programs are then not run, without a word from the kernel.
"""

from __future__ import annotations

import time

from sockpid.errors import SockpidError
from sockpid.subjects.deaf import Pair

from .exercise import ONCE, Exercise, switched_off

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional

    from sockpid.event import event

    from .collection import Attached
    from .tracer import Tracer

EVERY_SECONDS = 180.0
PATIENCE_SECONDS = 3.0
"""So long after its segments were sent a deaf socket's retransmit is waited for; the first comes after 0.2 s at
most."""


class HookWatch:
    """Of an attached probe. `stopped`: the hooks that fire no more, by name."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._due = time.monotonic() + EVERY_SECONDS
        self._exercise = Exercise()
        self._pair: Optional[Pair] = None
        self._former: Optional[Pair] = None
        self._begun = time.monotonic()
        self._fired = 0
        self._until = 0.0
        self.stopped: Dict[str, str] = {}

    @property
    def provokes(self) -> bool:
        """Is there a socket of ours that the kernel retransmits for, or was there just now?"""
        return self._pair is not None or self._former is not None or time.monotonic() < self._begun + PATIENCE_SECONDS

    def is_ours(self, seen: event.Event) -> bool:
        """Is this an event of a socket that was made to see whether there are any, now or at the start?"""
        if any(pair is not None and pair.is_of(seen) for pair in (self._pair, self._former)):
            return True
        ends = seen.tuple.sport, seen.tuple.dport, seen.tuple.saddr, seen.tuple.daddr
        return any((of.sport, of.dport, of.saddr, of.daddr) == ends for of in self._tracer.own)

    def look(self) -> List[str]:
        """Asks, if it is time to. Returns what is to be said: of hooks that stopped, or fire again."""
        now = time.monotonic()
        if self._pair is not None:
            return self._look_for_retransmit(now)
        if now < self._due:
            return []
        self._due = now + EVERY_SECONDS
        collection = self._tracer.collection
        fires: Dict[int, bool] = {}
        for index, attached in enumerate(collection.hooks):
            if attached.link is not None and attached.seen and attached.hook.name not in ONCE:
                before = collection.fired(attached.hook)
                if self._exercise.make(attached.hook.name):
                    fires[index] = collection.fired(attached.hook) > before
        self._provoke(now)
        return self._told(fires)

    def _told(self, fires: Dict[int, bool]) -> List[str]:
        """What is new of these hooks, by their place in the collection."""
        hooks = self._tracer.collection.hooks
        again = [
            hooks[index].hook.name for index, does in fires.items() if does and hooks[index].hook.name in self.stopped
        ]
        gone = [index for index, does in fires.items() if not does and hooks[index].hook.name not in self.stopped]
        lines: List[str] = []
        if again:
            lines.append(f"{', '.join(again)}: fires again")
        for name in again:
            del self.stopped[name]
        if gone:
            names = {index: self._name(hooks[index]) for index in gone}
            replaced = {index: self._replaced(index) for index in gone}
            why = switched_off()
            line = f"{', '.join(names.values())}: does not fire any more{': ' + why if why else ''}"
            others = [f"{hooks[index].hook.name} now by {by}" for index, by in replaced.items() if by]
            if others:
                line += f"; {', '.join(others)}"
            if len(others) < len(gone):
                line += "; a restart finds what can be had instead, and until then owners are not certain"
            lines.append(line)
            self.stopped.update({hooks[index].hook.name: names[index] for index, by in replaced.items() if not by})
        self._tracer.is_blind = any(a.hook.name in self.stopped and not a.hook.raises for a in hooks)
        return lines

    @staticmethod
    def _name(attached: Attached) -> str:
        by = f" ({attached.link.mechanism} {attached.link.target})" if attached.link is not None else ""
        return attached.hook.name + by

    def _replaced(self, index: int) -> Optional[str]:
        try:
            return self._tracer.collection.attach_again(index)
        except SockpidError:  # most likely for want of the right to, which is given up at the start
            return None

    def _provoke(self, now: float) -> None:
        """Makes the kernel retransmit for a deaf socket."""
        try:
            self._pair = Pair("inet")
        except OSError:
            return
        self._fired = self._retransmits()
        self._until = now + PATIENCE_SECONDS
        self._pair.send()

    def _look_for_retransmit(self, now: float) -> List[str]:
        assert self._pair is not None, "it was made before"
        fires = self._retransmits() > self._fired
        if not fires and now < self._until:
            return []
        retransmitted = self._pair.info().total_retrans
        self._pair.close()
        self._pair, self._former = None, self._pair  # its last events may be on their way
        if not fires and not retransmitted:
            return []
        hooks = self._tracer.collection.hooks
        return self._told({index: fires for index, attached in enumerate(hooks) if attached.hook.name == "retransmit"})

    def _retransmits(self) -> int:
        return sum(
            self._tracer.collection.fired(attached.hook)
            for attached in self._tracer.collection.hooks
            if attached.hook.name == "retransmit"
        )

    def close(self) -> None:
        if self._pair is not None:
            self._pair.close()
            self._pair = None
