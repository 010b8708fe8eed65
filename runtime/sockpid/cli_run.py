"""`sockpid run`: its options, and what they mean."""

from __future__ import annotations

import gc

from . import arguments
from .arguments import Namespace, argument
from .cli_shared import COMMON, FILTERS, LABELLING, filter_of, labels_of, options
from .errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Sequence

    from .run import RunOptions

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


def read(words: Sequence[str]) -> Optional[Namespace]:
    """What plain words behind `run` ask for, or None: argparse has to read them."""
    values = arguments.read(words, (*COMMON, *RUN, *FILTERS))
    return None if values is None else Namespace(**values, command="run", require_signature=None)


def execute(arguments: Namespace, words: Sequence[str]) -> int:
    """words: the command line behind the command's name, as `arguments` was made of."""
    # What a start makes stays. To look again and again for cycles in it takes as long as to load a program.
    gc.disable()
    try:
        from .run import run

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

    from . import cli_parser, config

    scratch = argparse.ArgumentParser(prog="sockpid")
    parser = cli_parser.add_run(scratch.add_subparsers(), cli_parser.common())
    where = path or config.place()
    if where is None:
        return parser.parse_args(words)
    found = config.merge(parser, words, where, never=("config",))
    if found.output and not any(word.startswith("--ou") for word in words):
        found.json = False  # of the command line: without outputs it means standard output
    return found


def wishes(arguments: Namespace) -> RunOptions:
    """What is asked for, but for how to attach the probe. Raises UsageError."""
    from .run import RunOptions

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
