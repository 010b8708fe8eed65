"""`sockpid top`: its options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sockpid.errors import UsageError

from .shared import LABELLING, filter_of, labels_of, options

if TYPE_CHECKING:
    import argparse

SORTS = ("rate", "count", "rtt", "bytes", "sockets", "last", "pid", "name")
LEVELS = ("owners", "sockets", "peers")

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
    from . import arguments
    from .parents import Help, add_filters

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
    arguments.add(top, LABELLING)
    add_filters(top)


def execute(arguments: argparse.Namespace) -> int:
    if arguments.interval < 0.1:
        raise UsageError("--interval must be at least 0.1 seconds")
    if arguments.rows < 1 or (arguments.speed is not None and arguments.speed < 0):
        raise UsageError("--rows must be at least 1, and --speed not negative")
    if arguments.events is None and arguments.speed is not None:
        raise UsageError("--speed is for --events")
    from sockpid.top.loop import STDOUT, Top
    from sockpid.top.source import Live, Recorded, keyboard

    keys = keyboard() if os.isatty(STDOUT) and not arguments.json and os.environ.get("TERM") != "dumb" else None
    if arguments.events is not None:
        chosen = filter_of(arguments)
        if any(condition is not None for condition in chosen):
            raise UsageError("the filters are for live events; with --events use --filter")
        speed = (1.0 if keys is not None else 0.0) if arguments.speed is None else arguments.speed
        return Top(arguments, Recorded(arguments.events, speed)).show(keys)
    from sockpid.owner import witness
    from sockpid.owner.certainty import Certainty
    from sockpid.owner.describe import Describer
    from sockpid.probe.tracer import Tracer
    from sockpid.run import start

    wanted, labels = filter_of(arguments), labels_of(arguments)
    with Tracer.open(options(arguments), arguments.offsets) as tracer:
        waiting = start.begin(tracer)
        start.give_up_rights(tracer, not arguments.no_witness, bool(labels.env))
        host = arguments.host or os.uname().nodename
        certainty = Certainty(tracer, None if arguments.no_witness else witness.begin(start.say))
        live = Live(tracer, certainty, Describer(tracer, False, labels), wanted, host, waiting)
        return Top(arguments, live).show(keys, lambda: start.tell(tracer))
