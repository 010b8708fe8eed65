"""`sockpid top`: its options, and its loop."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Union

from sockpid import arguments as options_of
from sockpid.cli_shared import LABELLING, filter_of, labels_of, options
from sockpid.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from .model import Model
    from .source import Live, Recorded
    from .state import State
    from .view import Now

SORTS = ("rate", "count", "rtt", "bytes", "sockets", "last", "pid", "name")
LEVELS = ("owners", "sockets", "peers")
STDOUT = 1
MOST_HELD = 100_000
"""Events that wait while the screen is paused; then it shows them."""

EPILOG = """\
examples:
  sockpid top                            who sends again, and how often; q ends it
  sockpid top --labels --label-env RANK  with container, unit and rank of the owners
  sockpid top --by peers --sort rtt      the other ends, the slowest first
  sockpid top --events events.jsonl      what `run --json` recorded, as it happened
  sockpid top --events day.jsonl.gz --speed 60
  ssh node-7 sockpid run --json | sockpid top --events -
  sockpid top --interval 10 > top.log    no terminal: a few lines every ten seconds
  sockpid top --json --duration 60       one snapshot a line

keys: Enter opens an owner, then a socket; Esc goes back; Tab changes between owners, sockets and peers; / filters;
p pauses; s c t b n l i a sort; ? explains; q quits."""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser of all."""
    from sockpid.cli_parser import Help, add_filters

    top = commands.add_parser(
        "top",
        parents=[common],
        formatter_class=Help,
        help="watch who retransmits, on a screen",
        description="Shows owners, sockets and peers by retransmits per second, and keeps it up to date. Attaches a "
        "probe of its own, or replays what was recorded. Without a terminal it prints a few lines each interval.",
        epilog=EPILOG,
    )
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: 1)")
    top.add_argument("--duration", type=float, metavar="SECONDS", help="stop after this time (default: at q or Ctrl-C)")
    top.add_argument("--by", choices=LEVELS, default="owners", help="what to begin with (default: owners)")
    top.add_argument("--sort", choices=SORTS, default="rate", help="by what, greatest first (default: rate)")
    top.add_argument("--filter", metavar="WORDS", default="", help="only rows that hold these words")
    top.add_argument("--rows", type=int, default=10, metavar="N", help="of a snapshot, without a screen (default: 10)")
    top.add_argument("--events", metavar="FILE", help="replay events that were recorded; FILE, FILE.gz or -")
    top.add_argument(
        "--speed",
        type=float,
        metavar="N",
        help="replay so many times as fast (default: 1; without a screen 0: at once)",
    )
    options_of.add(top, LABELLING)
    add_filters(top)


def execute(arguments: argparse.Namespace) -> int:
    if arguments.interval < 0.1:
        raise UsageError("--interval must be at least 0.1 seconds")
    if arguments.rows < 1 or (arguments.speed is not None and arguments.speed < 0):
        raise UsageError("--rows must be at least 1, and --speed not negative")
    if arguments.events is None and arguments.speed is not None:
        raise UsageError("--speed is for --events")
    from .source import keyboard

    keys = keyboard() if os.isatty(STDOUT) and not arguments.json and os.environ.get("TERM") != "dumb" else None
    if arguments.events is not None:
        from .source import Recorded

        chosen = filter_of(arguments)
        if any(condition is not None for condition in chosen):
            raise UsageError("the filters are for live events; with --events use --filter")
        speed = (1.0 if keys is not None else 0.0) if arguments.speed is None else arguments.speed
        return Top(arguments, Recorded(arguments.events, speed)).show(keys)
    from sockpid import start
    from sockpid.describe import Describer
    from sockpid.tracer import Tracer

    from .source import Live

    wanted, labels = filter_of(arguments), labels_of(arguments)
    with Tracer.open(options(arguments), arguments.offsets) as tracer:
        waiting = start.begin(tracer)
        start.give_up_rights(tracer, environ=bool(labels.env))
        host = arguments.host or os.uname().nodename
        live = Live(tracer, Describer(tracer, False, labels), wanted, host, waiting)
        return Top(arguments, live).show(keys, lambda: start.tell(tracer))


class Top:
    """Model, state and source of one `top`."""

    def __init__(self, arguments: argparse.Namespace, source: Union[Live, Recorded]) -> None:
        from .model import Model
        from .state import State

        self._source = source
        self._json, self._rows, self._interval = arguments.json, arguments.rows, arguments.interval
        self._end = None if arguments.duration is None else time.monotonic() + arguments.duration
        self._model: Model = Model(decay_seconds=max(5.0, 2 * arguments.interval))
        self._state: State = State(arguments.sort, arguments.filter, arguments.by)
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
                from .screen import Screen

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

    def _on(self, screen: Any, keyboard: int, woken: int) -> None:
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
        for document in self._held:
            with contextlib.suppress(KeyError, TypeError):  # a line that is no event
                self._model.add(document)
        self._held = []

    def _now(self) -> Now:
        from .view import Now

        if self._state.paused and self._frozen is not None:
            return self._frozen
        now_ns = self._source.now_ns()
        clock = time.strftime("%H:%M:%S", time.localtime(now_ns // 10**9))
        source, interval = self._source, self._interval * (self._source.speed or 1.0)
        return Now(clock, now_ns, interval, source.name, source.host, source.notes(), source.over)

    def _arranged(self, now: Now) -> List[Any]:
        place = self._state.place
        return self._state.arrange(self._model.rows(place.level, now.ns, place.owner, place.peer))

    def _draw(self, screen: Any) -> None:
        from .view import screen as lines

        if not self._state.paused:
            self._frozen = None
        now = self._now()
        if self._state.paused and self._frozen is None:
            self._frozen = now
        self._shown = self._arranged(now)
        screen.draw(lines(self._model, self._state, self._shown, now, *screen.size()))

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
        from .model import document
        from .view import plain

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
