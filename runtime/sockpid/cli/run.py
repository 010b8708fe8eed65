"""`sockpid run`: its options, and what they mean."""

from __future__ import annotations

import gc

from sockpid.errors import UsageError

from . import arguments
from .arguments import Namespace, argument
from .shared import COMMON, FILTERS, LABELLING, filter_of, labels_of, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, Optional, Sequence

    from sockpid.run.options import RunOptions

RUN = (
    argument(
        "--config",
        nargs="?",
        const="",
        metavar="FILE",
        help="take options from this file, too (default: /etc/sockpid/config.toml or .json); SIGHUP reads it again",
    ),
    argument("--duration", type=float, metavar="SECONDS", help="stop after this time (default: at Ctrl-C)"),
    argument("--output", action="append", metavar="KIND[:PLACE][,key=value]", help="where events go (see below)"),
    *LABELLING,
    argument("--sharers", action="store_true", help="list every process that has the socket open"),
    argument("--no-seed", action="store_true", help="do not look up the sockets that exist already"),
    argument("--summary", action="store_true", help="at the end, compare with the kernel's own counters"),
    argument(
        "--count", type=float, nargs="?", const=1.0, metavar="SECONDS", help="sum per owner and socket in the kernel"
    ),
    argument("--pin", nargs="?", const="", metavar="DIR", help="pin the map for look-ups (`sockpid lookup`)"),
    argument(
        "--keep",
        action="store_true",
        help="as --pin, where maps can be pinned; leave what is known of sockets to the next run, and take over what "
        "the last one left",
    ),
)
"""Options of `run`, but for those that it shares."""


RUN_EPILOG = """\
examples:
  sockpid run
  sockpid run --json | jq 'select(.pid == 4711)'
  sockpid run --labels --label-env RANK,LOCAL_RANK
  sockpid run --output table --output file:/var/log/sockpid.jsonl,size=100M,keep=7
  sockpid run --output prometheus:127.0.0.1:9469,labels=kind+comm+env.RANK --label-env RANK
  sockpid run --output otlp:http://127.0.0.1:4318,queue-dir=/var/lib/sockpid/otlp
  sockpid run --offsets ./my-kernel.json --duration 10
  sockpid run --config                    as a service does: options from /etc/sockpid/config.toml (docs/operation.md)

outputs (any number; docs/outputs.md says more):
  table | json                  on standard output (default: table, with --json: json)
  file:PATH                     JSON lines; size=64M age=7d keep=5 mode=0640; SIGHUP opens it anew
  unix:PATH                     JSON lines to all readers of a socket; mode=0600 buffer=4M
  syslog[:/dev/log]             RFC 5424; facility=daemon
  journald[:SOCKET]             fields SOCKPID_PID=...
  prometheus[:ADDRESS:PORT]     GET /metrics (127.0.0.1:9469); labels=kind+comm series=1000
  otlp[:URL]                    OTLP/HTTP in JSON (http://127.0.0.1:4318); signals=logs+metrics labels=kind+comm
                                interval=15s queue-dir=DIR queue-size=64M compress=gzip ca=FILE timeout=10s
  each: queue=65536             events that may wait for it; more are dropped, and counted per output

The column INTERRUPTED is the process that happened to run when the kernel retransmitted: what a tool without an owner
map would have printed."""


def add(commands: Any, parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds `run` to the parser of all; returns its own."""
    from .parents import Help, add_filters

    run: argparse.ArgumentParser = commands.add_parser(
        "run",
        parents=[parent],
        formatter_class=Help,
        help="print retransmits with their owners",
        description="Prints each TCP retransmit with the process that owns the socket. Before the first line a "
        "self-check proves the offsets on sockets of its own; what happens meanwhile is kept.",
        epilog=RUN_EPILOG,
    )
    arguments.add(run, RUN)
    add_filters(run)
    return run


def read(words: Sequence[str]) -> Optional[Namespace]:
    """What plain words behind `run` ask for, or None: argparse has to read them."""
    values = arguments.read(words, (*COMMON, *RUN, *FILTERS))
    return None if values is None else Namespace(**values, command="run", require_signature=None)


def execute(arguments: Namespace, words: Sequence[str]) -> int:
    """words: the command line behind the command's name, as `arguments` was made of."""
    # What a start makes stays. To look again and again for cycles in it takes as long as to load a program.
    gc.disable()
    try:
        from sockpid.run.run import run

        if arguments.config is None:
            return run(options(arguments), arguments.offsets, wishes(arguments))
        path = arguments.config
        arguments = _with_file(path, words)
        return run(options(arguments), arguments.offsets, wishes(arguments), lambda: wishes(_with_file(path, words)))
    finally:
        gc.enable()


def _with_file(path: str, words: Sequence[str]) -> Namespace:
    """The arguments with those that the file has; "": the one that is in /etc/sockpid, if there is one."""
    import argparse

    from sockpid.run import config

    from .parents import common

    scratch = argparse.ArgumentParser(prog="sockpid")
    parser = add(scratch.add_subparsers(), common())
    where = path or config.place()
    if where is None:
        return parser.parse_args(words)
    found = config.merge(parser, words, where, never=("config",))
    if found.output and not any(word.startswith("--ou") for word in words):
        found.json = False  # of the command line: without outputs it means standard output
    return found


def wishes(arguments: Namespace) -> RunOptions:
    """What is asked for, but for how to attach the probe. Raises UsageError."""
    from sockpid.run.options import RunOptions

    if arguments.count is not None and arguments.count <= 0:
        raise UsageError("--count must be more than 0 seconds")
    if arguments.count and (arguments.comm or arguments.cgroup or arguments.cidr or arguments.summary):
        raise UsageError("--count sums in the kernel, which knows of --pid, --netns and --port only")
    if arguments.count and arguments.output:
        raise UsageError("--count prints sums, which go to no --output")
    outputs = list(arguments.output or [])
    if arguments.json and "json" not in outputs:
        outputs.append("json")
    return RunOptions(
        arguments.json,
        arguments.duration,
        arguments.sharers,
        not arguments.no_seed,
        arguments.summary,
        arguments.count,
        arguments.pin,
        filter_of(arguments),
        tuple(outputs or ["table"]),
        labels_of(arguments),
        arguments.host,
        arguments.keep,
        not arguments.no_witness,
    )
