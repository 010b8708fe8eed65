"""`sockpid run`: retransmits with their owners, to any number of outputs, or summed up."""

from __future__ import annotations

import contextlib
import os
from typing import Callable, NamedTuple, Optional, Tuple

from . import start
from .collection import Options
from .counting import count
from .errors import UsageError
from .filters import Filter
from .labels import Wanted
from .notify import Notifier
from .outputs import Outputs
from .pin import DIRECTORY, bpffs
from .session import Session
from .signals import Signals
from .tracer import Tracer


class RunOptions(NamedTuple):
    """json: sums and summary as JSON. duration: seconds, None: until a signal. sharers: look up who else has it open.
    seed: ask for the sockets that exist already. summary: compare with the kernel's counters at the end. every: sum in
    the kernel and print every so many seconds. pin: directory to pin socket_to_pid in. filter: which events. outputs:
    where events go, as on the command line. labels: what to say of owners. host: what to call this one, None: its name.
    keep: leave the maps to the next run that pins there, and go on with those that the last one left.
    """

    json: bool = False
    duration: Optional[float] = None
    sharers: bool = False
    seed: bool = True
    summary: bool = False
    every: Optional[float] = None
    pin: Optional[str] = None
    filter: Filter = Filter()
    outputs: Tuple[str, ...] = ("table",)
    labels: Wanted = Wanted()
    host: Optional[str] = None
    keep: bool = False


def run(
    options: Options, offsets_path: Optional[str], what: RunOptions, reread: Optional[Callable[[], RunOptions]] = None
) -> int:
    """Attaches, seeds, proves the offsets, then tells events until a signal or the end of the duration.

    reread: what is asked for at SIGHUP. Where it may change, the kernel is told of no filter.
    """
    notifier = Notifier.from_environ(os.environ)
    settings = what.filter.settings() if reread is None else ()
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals())
        outputs = None
        if what.every:
            settings = (*what.filter.settings(), ("SETTING_COUNT", 1))
        else:
            outputs = Outputs.open(what.outputs, start.say)
            stack.callback(outputs.close)
        pins = None
        directory = _directory(what)
        if directory is not None:
            from .pinning import Pinning

            pins = stack.enter_context(Pinning(directory, what.keep))
        tracer = stack.enter_context(Tracer.open(options, offsets_path, pins.inherit if pins is not None else None))
        if pins is not None:
            pins.attached(tracer)
        waiting = tracer.inherited() + start.begin(tracer, what.seed)
        if settings:  # not before: the self-check reads records of its own sockets
            tracer.collection.replace_events(settings)
        if pins is not None:
            pins.pin(tracer)
        start.give_up_rights(tracer, what.sharers, bool(what.labels.env), what.summary)
        start.tell(tracer)
        if outputs is None:
            notifier.ready("counting TCP retransmits")
            return count(tracer, what, signals)
        beat = pins.beat if pins is not None else None
        return Session(tracer, what, outputs, notifier, reread, beat).follow(waiting, signals)


def _directory(what: RunOptions) -> Optional[str]:
    """Where to pin. Keeping is no reason not to run: without a bpf file system it is said, and left out."""
    if what.pin is not None or not what.keep:
        return what.pin if what.pin != "" else DIRECTORY
    try:
        bpffs(DIRECTORY)
    except UsageError as error:
        start.say(f"no owner will be kept for the next run: {error}")
        return None
    return DIRECTORY
