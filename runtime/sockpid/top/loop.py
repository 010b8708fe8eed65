"""The loop of `sockpid top`: events into the model, keys into the state, both onto the screen or into lines."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import time
from typing import Any, Callable, List, Optional, Union

from .model import Model, document
from .screen import Screen
from .source import Live, Recorded
from .state import State
from .view import Now, plain
from .view import screen as screen_lines

STDOUT = 1
MOST_HELD = 100_000
"""Events that wait while the screen is paused; then it shows them."""


class Top:
    """Model, state and source of one `top`."""

    def __init__(self, arguments: argparse.Namespace, source: Union[Live, Recorded]) -> None:
        self._source = source
        self._json, self._rows, self._interval = arguments.json, arguments.rows, arguments.interval
        self._end = None if arguments.duration is None else time.monotonic() + arguments.duration
        self._model = Model(decay_seconds=max(5.0, 2 * arguments.interval))
        self._state = State(arguments.sort, arguments.filter, arguments.by)
        self._stopped = False
        self._frozen: Optional[Now] = None
        self._shown: List[Any] = []
        self._held: List[Any] = []

    def show(self, keyboard: Optional[int], ready: Callable[[], None] = lambda: None) -> int:
        """Until it is over. ready: called once a signal ends it in order."""
        with self._signals() as woken:
            ready()
            if keyboard is None:
                self._plainly(woken)
            else:
                colour = not os.environ.get("NO_COLOR")
                with Screen(keyboard, STDOUT, colour) as screen:
                    self._on(screen, keyboard, woken)
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """A descriptor that is readable after a signal. A change of the window's size is one."""

        def stop(_number: int, _frame: Any) -> None:
            self._stopped = True

        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
        try:
            yield read
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            os.close(read)
            os.close(write)

    def _over(self) -> bool:
        return self._stopped or self._state.done or (self._end is not None and time.monotonic() >= self._end)

    def _on(self, screen: Screen, keyboard: int, woken: int) -> None:
        tick = time.monotonic() + self._interval
        while not self._over():
            self._draw(screen)
            changed = False
            while not changed and not self._over():
                ready = self._wait([keyboard, woken], tick)
                self._take()
                if woken in ready:
                    _drain(woken)
                    changed = True
                if keyboard in ready:
                    changed = True
                    try:
                        for key in screen.typed():
                            self._state.press(key, self._shown, max(1, screen.size()[1] - 8))
                            self._shown = self._arranged(self._now())
                    except EOFError:
                        return
                if time.monotonic() >= tick:
                    tick = max(tick + self._interval, time.monotonic())
                    if not (self._source.over or self._state.paused):
                        self._model.tick()
                    changed = True

    def _wait(self, watched: List[int], until: float) -> List[int]:
        due = self._source.due()
        most = [until - time.monotonic(), 0.25, *([] if due is None else [due])]
        if self._end is not None:
            most.append(self._end - time.monotonic())
        events = self._source.fileno()
        found = [*watched, *([events] if events >= 0 else [])]
        ready: List[int] = select.select(found, [], [], max(0.0, min(most)))[0]
        return ready

    def _take(self, until_ns: Optional[int] = None) -> None:
        self._held += self._source.take(until_ns)
        if self._state.paused and len(self._held) < MOST_HELD:
            return
        for event in self._held:
            with contextlib.suppress(KeyError, TypeError):  # a line that is no event
                self._model.add(event)
        self._held = []

    def _now(self) -> Now:
        if self._state.paused and self._frozen is not None:
            return self._frozen
        now_ns = self._source.now_ns()
        clock = time.strftime("%H:%M:%S", time.localtime(now_ns // 10**9))
        source, interval = self._source, self._interval * (self._source.speed or 1.0)
        return Now(clock, now_ns, interval, source.name, source.host, source.notes(), source.over)

    def _arranged(self, now: Now) -> List[Any]:
        place = self._state.place
        return self._state.arrange(self._model.rows(place.level, now.ns, place.owner, place.peer))

    def _draw(self, screen: Screen) -> None:
        if not self._state.paused:
            self._frozen = None
        now = self._now()
        if self._state.paused and self._frozen is None:
            self._frozen = now
        self._shown = self._arranged(now)
        screen.draw(screen_lines(self._model, self._state, self._shown, now, *screen.size()))

    def _plainly(self, woken: int) -> None:
        """A snapshot each interval: of the clock's time, or at once of the recorded events' own."""
        source = self._source
        while not self._over():
            if source.at_once:
                self._take(source.now_ns() + int(self._interval * 1e9))
            else:
                tick = time.monotonic() + self._interval
                while time.monotonic() < tick and not self._over() and not source.over:
                    self._wait([woken], tick)
                    self._take()
            self._model.tick()
            self._print()
            if source.over:
                break

    def _print(self) -> None:
        now = self._now()
        rows = self._arranged(now)
        if self._json:
            told = document(rows[: self._rows], self._state.place.level, self._model, now.ns, self._interval)
            print(json.dumps({**told, "host": now.host, "notes": list(now.notes)}), flush=True)
        else:
            print("\n".join(plain(self._model, self._state, rows, now, self._rows)), flush=True)


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
