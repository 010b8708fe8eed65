"""Options that several commands have, and what they mean. Nothing is imported before it is needed."""

from __future__ import annotations

from sockpid.bpf.deniable import FEATURES
from sockpid.errors import UsageError

from .arguments import Namespace, argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sockpid.errors import UnknownKernelError
    from sockpid.event.filters import Filter
    from sockpid.host.kernel import Identity
    from sockpid.image.image import Image
    from sockpid.offsets.source import Offsets
    from sockpid.owner.labels import Wanted
    from sockpid.probe.collection import Options

LABELS = ("cmdline", "container", "unit")


COMMON = (
    argument("--json", action="store_true", help="machine-readable output, keys stable between releases"),
    argument("--offsets", metavar="FILE", help="take the offsets from this table file alone"),
    argument(
        "--no-consensus",
        action="store_true",
        help="a kernel that no table has, without BTF: do not try the offsets of the known builds of its series, of "
        "which those are used that are proved on this host",
    ),
    argument("--consensus", action="store_true", help="try them, which is what is done without being asked"),
    argument(
        "--attach",
        choices=("fentry", "raw_tp", "tracepoint", "kprobe-pmu", "kprobe-tracefs"),
        help="prefer this mechanism for the hooks that learn owners (default: the best the kernel accepts)",
    ),
    argument(
        "--deny",
        metavar="NAME,...",
        default="",
        help=f"do without these capabilities of the kernel: {', '.join(FEATURES)}",
    ),
    argument("--max-sockets", type=int, default=8192, metavar="N", help="sockets to remember (default: %(default)s)"),
)
"""Of every command that attaches the probe."""

LABELLING = (
    argument(
        "--labels",
        nargs="?",
        const=",".join(LABELS),
        metavar="KIND,...",
        help=f"say more of the owners: {', '.join(LABELS)} (default: all)",
    ),
    argument("--label-env", metavar="NAME,...", help="say the owners' environment variables of these names"),
    argument("--host", metavar="NAME", help="what to call this host in events (default: its name)"),
    argument(
        "--no-witness",
        action="store_true",
        help="do not ask /proc whether owners have their sockets open, and give up the rights that it takes",
    ),
)
"""What to say of owners and of this host."""

FILTERS = (
    argument("--pid", type=int, help="of this process"),
    argument("--comm", metavar="PATTERN", help="of processes with such a name (* and ? as in a shell)"),
    argument("--cgroup", metavar="PATH", help="of processes in this control group or below it"),
    argument("--netns", metavar="INODE|NAME|pid:N", help="in this network namespace"),
    argument("--port", type=int, help="with this port at either end"),
    argument("--cidr", metavar="NETWORK", help="with either address in this network"),
)
"""Which events to tell of."""


def options(arguments: Namespace) -> Options:
    """How to attach the probe. Raises UsageError."""
    from sockpid.probe.collection import Options
    from sockpid.run.signals import unwind

    deny = frozenset(name for name in arguments.deny.split(",") if name)
    if not deny <= FEATURES.keys():
        raise UsageError(f"--deny: unknown {', '.join(sorted(deny - FEATURES.keys()))}; known: {', '.join(FEATURES)}")
    if arguments.max_sockets < 1:
        raise UsageError("--max-sockets must be at least 1")
    if arguments.consensus and arguments.no_consensus:
        raise UsageError("--consensus and --no-consensus contradict one another")
    counting = getattr(arguments, "count", None) is not None
    return Options(
        deny,
        arguments.attach,
        arguments.max_sockets,
        counting,
        prove=None if arguments.no_consensus else _prove,
        take_signals=unwind,
    )


def _prove(options: Options, image: Image, identity: Identity, unknown: UnknownKernelError) -> Offsets:
    """Imported when it is wanted: nearly every kernel has a source that speaks of it."""
    from sockpid.calibrate import proof

    return proof.find(options, image, identity, unknown)


def filter_of(arguments: Namespace) -> Filter:
    """Raises UsageError."""
    from sockpid.event.filters import Filter, network

    netns = None
    if arguments.netns is not None:
        from sockpid.pins.lookup import netns_inode

        netns = netns_inode(arguments.netns)
        _hold(netns)
    if arguments.pid is not None:
        from sockpid.host import proc

        if not proc.in_initial_pid_namespace():
            _say(
                f"--pid {arguments.pid}: process ids are those of the host, which sockpid cannot tell from within its "
                "own pid namespace: events of the host's process of that number are shown, and no other"
            )
    cidr = None if arguments.cidr is None else network(arguments.cidr)
    return Filter(arguments.pid, arguments.comm, arguments.cgroup, netns, arguments.port, cidr)


def _hold(inode: int) -> None:
    """A number is given out again once its namespace is gone: so it must not go."""
    from sockpid.host import netns

    if not netns.hold(inode):
        _say(
            f"--netns {inode}: nothing in sight refers to this namespace, so that it cannot be held: if it ends, "
            "events of a later one that gets its number are shown, too"
        )


def _say(line: str) -> None:
    from sockpid.run.start import say

    say(line)


def labels_of(arguments: Namespace) -> Wanted:
    """Raises UsageError."""
    from sockpid.owner.labels import KINDS, Wanted

    kinds, env = (
        tuple(word for word in (text or "").split(",") if word) for text in (arguments.labels, arguments.label_env)
    )
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--labels: {kind} is none of {', '.join(KINDS)}")
    return Wanted(kinds, env)
