"""The places of the hooks, where a kernel of long ago decides."""

from __future__ import annotations

from sockpid.image.hooks import HOOKS


def test_who_begins_to_listen_does_not_pass_the_tracepoint_of_4_15() -> None:
    """There all but that change of state is raised; without kprobes nobody learns who listens, and offsets are not
    to blame."""
    places = {hook.name: [(target.kind, target.name) for target in hook.targets] for hook in HOOKS}
    old = ("tracepoint", "tcp/tcp_set_state")
    assert old in places["close"]
    assert old in places["connect"]
    assert places["listen"] == [
        ("raw_tp", "inet_sock_set_state"),
        ("tracepoint", "sock/inet_sock_set_state"),
        ("func", "inet_csk_listen_start"),
    ]
