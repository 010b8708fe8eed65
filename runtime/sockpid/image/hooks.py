"""Which kernel functions and tracepoints feed each program, in order of preference.

Not all are the obvious ones. A kretprobe on inet_csk_accept misses most accepts of blocking servers, a kprobe on
__tcp_retransmit_skb sees nothing where the compiler split that function, and close() is no end of a socket: its FIN is
retransmitted later. A tracepoint that also fires in softirq context (tcp_rcv_space_adjust, through sockmap and kTLS) is
no place to learn an owner from.
"""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple
from sockpid.uapi import TCP_LISTEN, TCP_SYN_SENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Optional, Tuple


class Target(NamedTuple):
    """One place a program can attach to.

    kind: "raw_tp", "tracepoint" (of perf, "system/event"), "fentry", "kprobe", "func": a kernel function by fentry,
    or else kprobe; or "lsm": what the kernel asks its security modules. name: of the tracepoint or function. settings:
    those of the image's enum setting that are on here; the others that speak of the place are off. fields: of a
    tracepoint's record, those that stand for the arguments. arguments: how many the function has, if the program reads
    more of them. least: how many a raw tracepoint must have. whole: not where the compiler split the function, whose
    callers then jump to a part. entry: the event is seen when the attempt begins: it may fail yet, and is not in the
    socket's counts. flaw: what else is not seen here. general: every protocol's sockets come by here, MPTCP's too.
    """

    kind: str
    name: str
    settings: FrozenSet[str] = frozenset()
    fields: Tuple[str, ...] = ()
    arguments: int = 12
    whole: bool = False
    entry: bool = False
    flaw: Optional[str] = None
    least: int = 0
    general: bool = False


class Hook(NamedTuple):
    """A place in the kernel's TCP that we want, the program for it, and its targets: alternatives.

    prog: what the program is called in the kernel. source: the program of the image that it is made of, with these
    settings; "": that of the same name. learns: it tells of owners. raises: it writes events. needs: a path that exists
    where the kernel has what the hook is for. spared_by: another hook, which sees what this one is for where its own
    target is a general one. behind: another hook, which was asked before: what this one misses is known where that one
    cannot be skipped. preemptible: only where the kernel can preempt a task that is inside a program, so that
    other mechanisms skip some of its runs.
    """

    name: str
    prog: str
    what: str
    targets: Tuple[Target, ...]
    learns: bool = False
    raises: bool = False
    mandatory: bool = False
    needs: Optional[str] = None
    spared_by: str = ""
    behind: str = ""
    preemptible: bool = False
    source: str = ""
    settings: Tuple[Tuple[str, int], ...] = ()


def _use(how: int) -> Tuple[Tuple[str, int], ...]:
    """Of a hook that learns who uses a socket. how: enum how."""
    return (("SETTING_HOW", how),)


def _begin(how: int, state: int = 0) -> Tuple[Tuple[str, int], ...]:
    """Of a hook that learns who begins a connection. state: the new one, where it hangs on changes of state."""
    return (("SETTING_HOW", how), ("SETTING_BEGINS", 1), ("SETTING_STATE", state))


# enum how (bpf_bytecode/sockpid.h)
HOW_CONNECT = 1
HOW_ACCEPT = 2
HOW_SEND = 3
HOW_RECV = 4
HOW_LISTEN = 5
HOW_SHUTDOWN = 8

TCP_ZEROCOPY_RECEIVE = 35  # include/uapi/linux/tcp.h

MPTCP = "/proc/sys/net/mptcp"
LOCKED = frozenset({"SETTING_LOCKED"})
"""What comes here with the socket's lock held by a process also comes from softirq, without."""
SOCKET = frozenset({"SETTING_SOCKET"})
SET_STATE = frozenset({"SETTING_SET_STATE"})
SET_STATE_LOCKED = SET_STATE | LOCKED
RETRANSMIT_ERR = frozenset({"SETTING_RETRANSMIT_ERR"})
STATE_FIELDS = ("skaddr", "oldstate", "newstate")

# Linux 4.16 moved the one to the other: commit 563e0bb0dc74 ("net: tracepoint: replace tcp_set_state tracepoint with
# inet_sock_set_state tracepoint").
SET_STATE_TARGETS = (
    Target("raw_tp", "inet_sock_set_state", SET_STATE),
    Target("tracepoint", "sock/inet_sock_set_state", SET_STATE, STATE_FIELDS),
    Target("tracepoint", "tcp/tcp_set_state", SET_STATE, STATE_FIELDS),
)
BEGIN_TARGETS = tuple(target._replace(settings=SET_STATE_LOCKED, general=True) for target in SET_STATE_TARGETS)
LISTEN_TARGETS = tuple(target for target in BEGIN_TARGETS if target.name != "tcp/tcp_set_state")

HOOKS: Tuple[Hook, ...] = (
    # First of all: a struct sock is reused at once, so no owner may be learnt before forgetting works.
    Hook(
        "destroy",
        "tcp_destroy",
        "forgets a destroyed socket",
        (
            Target("lsm", "bpf_lsm_sk_free_security"),
            Target("raw_tp", "tcp_destroy_sock"),
            Target("tracepoint", "tcp/tcp_destroy_sock", fields=("skaddr",)),
            Target("func", "tcp_v4_destroy_sock"),
        ),
        mandatory=True,
    ),
    Hook(
        "close",
        "tcp_set_state",
        "forgets the name of a closed socket",
        (*SET_STATE_TARGETS, Target("func", "tcp_set_state", arguments=2)),
    ),
    Hook(
        "retransmit",
        "tcp_retransmit",
        "reports a retransmit",
        # The third argument, the error of a failed attempt, came with Linux kernel commit ad892e912b84 ("tcp: trace
        # retransmit failures in tcp_retransmit_skb") (in v6.17).
        (
            Target("raw_tp", "tcp_retransmit_skb", RETRANSMIT_ERR, least=3),
            Target("raw_tp", "tcp_retransmit_skb"),
            Target("tracepoint", "tcp/tcp_retransmit_skb", RETRANSMIT_ERR, ("skaddr", "skbaddr", "err")),
            # The third is not looked at.
            Target("tracepoint", "tcp/tcp_retransmit_skb", fields=("skaddr", "skbaddr", "skbaddr")),
            # Before 4.15 there are no tracepoints, and compilers that left this function in one piece. It is called for
            # a retransmit of any kind.
            Target("kprobe", "__tcp_retransmit_skb", whole=True, entry=True),
            Target("func", "tcp_retransmit_skb", entry=True, flaw="tail loss probes are not seen"),
        ),
        raises=True,
        mandatory=True,
    ),
    Hook(
        "synack",
        "tcp_retransmit_synack",
        "reports a retransmitted SYN-ACK",
        (
            Target("raw_tp", "tcp_retransmit_synack"),
            Target("tracepoint", "tcp/tcp_retransmit_synack", fields=("skaddr", "req")),
            Target("func", "tcp_rtx_synack", entry=True),
        ),
        raises=True,
    ),
    Hook(
        "connect",
        "tcp_connect",
        "learns the owner before the first SYN",
        (Target("func", "tcp_connect", LOCKED), *BEGIN_TARGETS),
        learns=True,
        behind="socket_connect",
        source="tcp_use",
        settings=_begin(HOW_CONNECT, TCP_SYN_SENT),
    ),
    # tcp_connect() is of the subflow, which is the kernel's own: the socket that processes hold changes its state, too.
    Hook(
        "mptcp-connect",
        "mptcp_connect",
        "learns the owner of an MPTCP socket when it connects",
        BEGIN_TARGETS,
        learns=True,
        needs=MPTCP,
        spared_by="connect",
        behind="socket_connect",
        source="tcp_use",
        settings=_begin(HOW_CONNECT, TCP_SYN_SENT),
    ),
    # What security modules are asked comes before the connection has a name, but is never skipped.
    Hook(
        "socket_connect",
        "socket_connect",
        "learns the owner when it asks for a connection",
        (Target("lsm", "bpf_lsm_socket_connect", SOCKET),),
        learns=True,
        preemptible=True,
        source="tcp_use",
        settings=_begin(HOW_CONNECT),
    ),
    Hook(
        "listen",
        "tcp_listen",
        "learns the owner of a listening socket",
        # inet_csk_listen_start() sets the state, first of all: the tracepoint sees no less there, and MPTCP's own, too.
        # But in Linux 4.15, whose tcp/tcp_set_state is not raised for that: sk_state_store() sets it.
        (*LISTEN_TARGETS, Target("func", "inet_csk_listen_start", LOCKED)),
        learns=True,
        behind="socket_listen",
        source="tcp_use",
        settings=_begin(HOW_LISTEN, TCP_LISTEN),
    ),
    Hook(
        "socket_listen",
        "socket_listen",
        "learns the owner when it asks to listen",
        (Target("lsm", "bpf_lsm_socket_listen", SOCKET),),
        learns=True,
        preemptible=True,
        source="tcp_use",
        settings=_begin(HOW_LISTEN),
    ),
    Hook(
        "accept",
        "tcp_accept",
        "learns the accepting process",
        (Target("lsm", "bpf_lsm_sock_graft"), Target("func", "security_sock_graft")),
        learns=True,
        source="tcp_use",
        settings=_begin(HOW_ACCEPT),
    ),
    Hook(
        "send",
        "tcp_sendmsg",
        "learns the owner when it sends",
        (
            Target("lsm", "bpf_lsm_socket_sendmsg", SOCKET, general=True),
            Target("fentry", "tcp_sendmsg_locked", LOCKED),
            Target("raw_tp", "tcp_sendmsg_locked", LOCKED),
            Target("kprobe", "tcp_sendmsg_locked", LOCKED),
            Target("func", "tcp_sendmsg"),
            Target("raw_tp", "sock_send_length", general=True),
        ),
        learns=True,
        source="tcp_use",
        settings=_use(HOW_SEND),
    ),
    Hook(
        "sendpage",
        "tcp_sendmsg",
        "learns the owner at sendfile and splice before Linux 6.5",
        (Target("func", "do_tcp_sendpages", LOCKED), Target("func", "tcp_sendpage")),
        learns=True,
        source="tcp_use",
        settings=_use(HOW_SEND),
    ),
    Hook(
        "mptcp",
        "tcp_sendmsg",
        "learns the owner of an MPTCP socket when it sends",
        # The tracepoint sees every send of every protocol: for want of a better one, and where there is MPTCP at all.
        (Target("func", "mptcp_sendmsg"), Target("raw_tp", "sock_send_length")),
        learns=True,
        needs=MPTCP,
        spared_by="send",
        source="tcp_use",
        settings=_use(HOW_SEND),
    ),
    Hook(
        "exec",
        "sched_process_exec",
        "learns the new name of a process that executes another program",
        (Target("raw_tp", "sched_process_exec"), Target("tracepoint", "sched/sched_process_exec")),
    ),
    Hook(
        "exit",
        "sched_process_exit",
        "learns when a process ends, whose id may be given out again",
        (Target("raw_tp", "sched_process_exit"), Target("tracepoint", "sched/sched_process_exit")),
    ),
    Hook(
        "receive",
        "tcp_recvmsg",
        "learns the owner when it receives",
        (
            Target("lsm", "bpf_lsm_socket_recvmsg", SOCKET, general=True),
            Target("func", "tcp_recvmsg"),
            Target("raw_tp", "sock_recv_length", general=True),
        ),
        learns=True,
        source="tcp_use",
        settings=_use(HOW_RECV),
    ),
    Hook(
        "mptcp-receive",
        "tcp_recvmsg",
        "learns the owner of an MPTCP socket when it receives",
        (Target("func", "mptcp_recvmsg"),),
        learns=True,
        needs=MPTCP,
        spared_by="receive",
        source="tcp_use",
        settings=_use(HOW_RECV),
    ),
    # Uses that pass by all of the above.
    Hook(
        "splice",
        "tcp_splice_read",
        "learns the owner when it splices data out of the socket",
        (Target("func", "tcp_splice_read", SOCKET),),
        learns=True,
        source="tcp_use",
        settings=_use(HOW_RECV),
    ),
    Hook(
        "zerocopy",
        "tcp_zerocopy",
        "learns the owner when it receives by mapping pages",
        (Target("lsm", "bpf_lsm_socket_getsockopt", SOCKET), Target("func", "tcp_getsockopt")),
        learns=True,
        source="tcp_use",
        settings=(*_use(HOW_RECV), ("SETTING_OPTION", TCP_ZEROCOPY_RECEIVE)),
    ),
    Hook(
        "shutdown",
        "tcp_shutdown",
        "learns the owner when it shuts the socket down",
        (Target("lsm", "bpf_lsm_socket_shutdown", SOCKET), Target("func", "inet_shutdown", SOCKET)),
        learns=True,
        source="tcp_use",
        settings=_use(HOW_SHUTDOWN),
    ),
)


def numbers() -> Dict[str, int]:
    """Name of a hook -> what its runs are counted by, from 0. Each has its own: on a busy host another's would be taken
    for them."""
    return {hook.name: number for number, hook in enumerate(HOOKS)}


def functions() -> FrozenSet[str]:
    """Every kernel function that a program may be loaded for by BTF id; the table carries these ids."""
    return frozenset(t.name for hook in HOOKS for t in hook.targets if t.kind in ("func", "fentry", "lsm"))
