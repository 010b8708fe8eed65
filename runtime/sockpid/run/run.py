"""`sockpid run`: retransmits with their owners, to any number of outputs, or summed up."""

from __future__ import annotations

import gc
import os

from sockpid.errors import UsageError
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer

from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

    from .options import RunOptions
    from .pinning import Pinning


def run(
    options: Options, offsets_path: Optional[str], what: RunOptions, reread: Optional[Callable[[], RunOptions]] = None
) -> int:
    """Attaches, seeds, proves the offsets, then tells events until a signal or the end of the duration.

    reread: what is asked for at SIGHUP. Where it may change, the kernel is told of no filter.
    """
    # An owner may turn out to be another than the programs know. What they do not raise nobody can ask about.
    told = what.filter._replace(pid=None) if what.witness else what.filter
    settings = told.settings() if reread is None else ()
    if what.every:
        settings = (*what.filter.settings(), ("SETTING_COUNT", 1))
    with Signals() as signals:
        options = options._replace(take_signals=signals.listen)
        directory = _directory(what)
        if directory is None:
            with Tracer.open(options, offsets_path) as tracer:
                return _tell(tracer, what, settings, signals, reread, None)
        from .pinning import Pinning

        signals.listen()  # a half of what is pinned must not stay behind
        with Pinning(directory, what.keep) as pins, Tracer.open(options, offsets_path, pins.inherit) as tracer:
            pins.attached(tracer)
            return _tell(tracer, what, settings, signals, reread, pins)


def _tell(
    tracer: Tracer,
    what: RunOptions,
    settings: Tuple[Tuple[str, int], ...],
    signals: Signals,
    reread: Optional[Callable[[], RunOptions]],
    pins: Optional[Pinning],
) -> int:
    """What follows once the probe is attached, which is as soon as can be: what takes time to import comes here."""
    signals.listen()
    from . import start
    from .notify import Notifier

    notifier = Notifier.from_environ(os.environ)
    outputs = None
    if not what.every:
        from sockpid.outputs import Outputs

        outputs = Outputs.open(what.outputs, start.say)
    try:
        begun = start.begin(tracer, what.seed)
        waiting = [tracer.resolve(seen) for seen in tracer.inherited()] + begun
        if settings:  # not before: the self-check reads records of its own sockets
            tracer.collection.replace_events(settings)
        if pins is not None:
            pins.pin(tracer)
        start.give_up_rights(tracer, what.sharers or what.witness, bool(what.labels.env), what.summary)
        start.tell(tracer)
        gc.enable()  # see cli/run.py
        if outputs is None:
            from .counting import count

            notifier.ready("counting TCP retransmits")
            return count(tracer, what, signals)
        from .session import Session

        beat = pins.beat if pins is not None else None
        return Session(tracer, what, outputs, notifier, reread, beat).follow(waiting, signals)
    finally:
        if outputs is not None:
            outputs.close()


def _directory(what: RunOptions) -> Optional[str]:
    """Where to pin. Keeping is no reason not to run: without a bpf file system it is said, and left out."""
    if what.pin or (what.pin is None and not what.keep):
        return what.pin
    from sockpid.pins.pin import DIRECTORY, bpffs

    if what.pin is not None:
        return DIRECTORY
    try:
        bpffs(DIRECTORY)
    except UsageError as error:
        from . import start

        start.say(f"no owner will be kept for the next run: {error}")
        return None
    return DIRECTORY
