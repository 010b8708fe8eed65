"""Options that several commands have, and what they mean. Nothing is imported before it is needed."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING

from .deniable import FEATURES
from .errors import UsageError

if TYPE_CHECKING:
    from .collection import Options
    from .filters import Filter
    from .labels import Wanted


class Help(argparse.RawDescriptionHelpFormatter):
    """As its base, but for the width: argparse asks shutil for it at each option, which imports compressors."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


@functools.lru_cache(None)
def _columns() -> int:
    """Of the terminal, as shutil.get_terminal_size() would have it."""
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
        if columns > 0:
            return columns
    with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or no terminal
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr] # suppressed
    return 80


LABELS = ("cmdline", "container", "unit")


def common() -> argparse.ArgumentParser:
    """Of every command that attaches the probe; a parent for its parser."""
    common = argparse.ArgumentParser(add_help=False, formatter_class=Help)
    common.add_argument("--json", action="store_true", help="machine-readable output, keys stable between releases")
    common.add_argument("--offsets", metavar="FILE", help="take the offsets from this table file alone")
    common.add_argument(
        "--consensus",
        action="store_true",
        help="a kernel that no table has, without BTF: use what all builds of its series agree on, if the self-check "
        "passes",
    )
    common.add_argument(
        "--attach",
        choices=("fentry", "raw_tp", "tracepoint", "kprobe-pmu", "kprobe-tracefs"),
        help="prefer this mechanism for the hooks that learn owners (default: the best the kernel accepts)",
    )
    common.add_argument(
        "--deny",
        metavar="NAME,...",
        default="",
        help=f"do without these capabilities of the kernel: {', '.join(FEATURES)}",
    )
    common.add_argument(
        "--max-sockets", type=int, default=8192, metavar="N", help="sockets to remember (default: %(default)s)"
    )
    return common


def add_labels(parser: argparse.ArgumentParser) -> None:
    """What to say of owners and of this host."""
    parser.add_argument(
        "--labels",
        nargs="?",
        const=",".join(LABELS),
        metavar="KIND,...",
        help=f"say more of the owners: {', '.join(LABELS)} (default: all)",
    )
    parser.add_argument("--label-env", metavar="NAME,...", help="say the owners' environment variables of these names")
    parser.add_argument("--host", metavar="NAME", help="what to call this host in events (default: its name)")


def add_filters(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument_group("filters", "only events that meet all of them")
    chosen.add_argument("--pid", type=int, help="of this process")
    chosen.add_argument("--comm", metavar="PATTERN", help="of processes with such a name (* and ? as in a shell)")
    chosen.add_argument("--cgroup", metavar="PATH", help="of processes in this control group or below it")
    chosen.add_argument("--netns", metavar="INODE|NAME|pid:N", help="in this network namespace")
    chosen.add_argument("--port", type=int, help="with this port at either end")
    chosen.add_argument("--cidr", metavar="NETWORK", help="with either address in this network")


def options(arguments: argparse.Namespace) -> Options:
    """How to attach the probe. Raises UsageError."""
    from .collection import Options

    deny = frozenset(name for name in arguments.deny.split(",") if name)
    if not deny <= FEATURES.keys():
        raise UsageError(f"--deny: unknown {', '.join(sorted(deny - FEATURES.keys()))}; known: {', '.join(FEATURES)}")
    if arguments.max_sockets < 1:
        raise UsageError("--max-sockets must be at least 1")
    counting = getattr(arguments, "count", None) is not None
    return Options(deny, arguments.attach, arguments.max_sockets, counting, consensus=arguments.consensus)


def filter_of(arguments: argparse.Namespace) -> Filter:
    """Raises UsageError."""
    from .filters import Filter, network
    from .lookup import netns_inode

    return Filter(
        arguments.pid,
        arguments.comm,
        arguments.cgroup,
        None if arguments.netns is None else netns_inode(arguments.netns),
        arguments.port,
        None if arguments.cidr is None else network(arguments.cidr),
    )


def labels_of(arguments: argparse.Namespace) -> Wanted:
    """Raises UsageError."""
    from .labels import KINDS, Wanted

    kinds, env = (
        tuple(word for word in (text or "").split(",") if word) for text in (arguments.labels, arguments.label_env)
    )
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--labels: {kind} is none of {', '.join(KINDS)}")
    return Wanted(kinds, env)
