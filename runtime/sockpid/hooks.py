"""Which kernel functions and tracepoints feed each program, in order of preference.

Not all are the obvious ones. A kretprobe on inet_csk_accept misses most accepts of blocking servers, a kprobe on
__tcp_retransmit_skb sees nothing where the compiler split that function, and close() is no end of a socket: its FIN is
retransmitted later.
"""

from __future__ import annotations

from typing import FrozenSet, NamedTuple, Tuple


class Target(NamedTuple):
    """One place a program can attach to: mechanism family ("raw_tp" or "func") and the name there.

    "func" is a kernel function, whose kprobe is called on entry. `settings` are those of the image's enum setting that
    are on here; all others that speak of the place are off.
    """

    kind: str
    name: str
    settings: FrozenSet[str] = frozenset()


class Hook(NamedTuple):
    """A program of the image, what it is for, and where it may attach. Targets of one tuple are alternatives."""

    prog: str
    what: str
    mandatory: bool
    learns: bool
    targets: Tuple[Target, ...]


HOOKS: Tuple[Hook, ...] = (
    # First of all: a struct sock is reused at once, so no owner may be learnt before forgetting works.
    Hook(
        "tcp_destroy",
        "forgets a destroyed socket",
        True,
        False,
        (Target("raw_tp", "tcp_destroy_sock"), Target("func", "tcp_v4_destroy_sock")),
    ),
    Hook(
        "tcp_retransmit",
        "reports a retransmit",
        True,
        False,
        # The third argument, the error of a failed attempt, came with Linux kernel commit ad892e912b84 ("tcp: trace
        # retransmit failures in tcp_retransmit_skb") (in v6.17). A kernel without it refuses to attach a program that
        # reads it, so the first target tells the two apart.
        (
            Target("raw_tp", "tcp_retransmit_skb", frozenset({"SETTING_RETRANSMIT_ERR"})),
            Target("raw_tp", "tcp_retransmit_skb"),
            Target("func", "tcp_retransmit_skb"),
        ),
    ),
    Hook(
        "tcp_connect",
        "learns the owner before the first SYN",
        False,
        True,
        (Target("func", "tcp_connect"), Target("raw_tp", "inet_sock_set_state", frozenset({"SETTING_SET_STATE"}))),
    ),
    Hook(
        "tcp_sendmsg",
        "learns the owner when it sends",
        False,
        True,
        (
            Target("raw_tp", "tcp_sendmsg_locked"),
            Target("func", "tcp_sendmsg_locked"),
            Target("func", "tcp_sendmsg"),
            Target("raw_tp", "sock_send_length"),
        ),
    ),
)


def functions() -> FrozenSet[str]:
    """Every kernel function that a hook may attach to; the table carries their BTF ids."""
    return frozenset(t.name for hook in HOOKS for t in hook.targets if t.kind == "func")
