"""What each program does, one run after the other, on kernels made up: 64 and 32 bits, both byte orders, new and old.

With an even seed, programs are without what they cannot reach, as the loader gives them to old verifiers.
"""

from __future__ import annotations

import functools
import socket
from typing import Any

import pytest

from sockpid.image.hooks import numbers
from tests.bpf.kernel import (
    AF_INET6,
    AF_NETLINK,
    IPPROTO_MPTCP,
    NETNS,
    PF_KTHREAD,
    SOCK_RAW,
    TCP_CLOSE,
    TCP_LISTEN,
    TCP_SYN_SENT,
    Socket,
    Task,
)
from tests.bpf.layouts import NEW_ABSENT, OLD_ABSENT, layout
from tests.bpf.memory import Fault
from tests.bpf.programs import OLD_CALLS, Programs
from tests.bpf.world import Event, World, finish, programs_of
from tests.unit.image.test_relocate import images

KERNELS = ["x86_64", "x86_64-old", "arm", "s390x", "aarch64-no-netns"]
OWNER_LATE, OWNER_SHARED, OWNER_LENT = 1, 2, 4
COUNTER_EVENTS, COUNTER_LOST, COUNTER_INSERTED, COUNTER_DELETED, COUNTER_STALE, COUNTER_FIRED = 0, 1, 2, 3, 4, 8
LATER = 20_000_000


@functools.cache
def programs(kernel: str, seed: int) -> Programs:
    arch = kernel.partition("-")[0]
    image = images()["big" if arch == "s390x" else "little"]
    if kernel.endswith("old"):
        made, calls = programs_of(image, arch, seed, absent=OLD_ABSENT, old=True), OLD_CALLS
    else:
        missing = ("struct sock.__sk_common.skc_net.net",) if kernel.endswith("no-netns") else ()
        made, calls = programs_of(image, arch, seed, absent=NEW_ABSENT + missing), None
    return Programs(image, made.arch, made.layout, calls, pruned=seed % 2 == 0)


class Case:
    """A world, two processes and a socket."""

    def __init__(self, kernel: str, seed: int) -> None:
        self.name = kernel
        self.world = World(programs(kernel, seed), {"counts": 2})
        self.kernel = self.world.kernel
        self.a, self.b = self.kernel.task(100, 5000, "alice"), self.kernel.task(200, 6000, "bob")
        self.idle = self.kernel.task(0, 0, "swapper")
        self.sock = self.kernel.socket()
        self.netns = 0 if kernel.endswith("no-netns") else NETNS

    def use(self, task: Task, sock: Socket, hook: str = "send", kind: str = "fentry", **settings: Any) -> int:
        return finish(self.world.use(task, sock, hook, kind, **settings))

    def learnt(self, sock: Socket) -> str | None:
        owner = self.world.owner(sock)
        return None if owner is None else owner.comm

    def event(self, sock: Socket, **settings: Any) -> Event:
        finish(self.world.retransmit(sock, self.idle, **settings))
        return self.world.events()[-1]

    def count(self, index: int) -> int:
        return self.world.machine.counter(index)


@pytest.fixture(params=[(kernel, seed) for kernel in KERNELS for seed in (1, 2)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_a_send_is_learnt_and_an_event_names_it(case: Case) -> None:
    thread = case.kernel.task(100, 5000, "alice", tid=103)
    case.use(thread, case.sock)
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert (owner.sk, owner.inode, owner.tgid, owner.start_ns) == (case.sock.address, case.sock.inode, 100, 5000)
    assert (owner.how, owner.comm, owner.users, owner.flags) == ("send", "alice", 1, OWNER_LATE)
    assert (owner.opener, owner.opener_how) == (100, "send")
    event = case.event(case.sock)
    assert event.owner == owner
    assert event.fields["found"] == 1
    assert event.fields["inode"] == case.sock.inode
    assert event.name == (
        case.netns, 0, socket.AF_INET, 40000, 443, 0, socket.inet_aton("10.0.0.1") + bytes(12),
        socket.inet_aton("10.0.0.2") + bytes(12),
    )  # fmt: skip
    ((_, public),) = case.world.public().items()
    assert public is not None
    assert (public.sk, public.inode, public.tgid, public.users) == (case.sock.address, case.sock.inode, 100, 1)
    assert (case.count(COUNTER_EVENTS), case.count(COUNTER_INSERTED)) == (1, 1)
    assert case.count(COUNTER_FIRED + numbers()["send"]) == 1


def test_the_second_use_takes_the_short_way_until_uses_run_over(case: Case) -> None:
    for _ in range(256):
        case.use(case.a, case.sock)
        assert case.world.settled(case.sock, case.a)
    case.use(case.a, case.sock)
    assert not case.world.settled(case.sock, case.a)
    fired = COUNTER_FIRED + numbers()["send"]
    assert case.count(fired) == 1
    case.use(case.a, case.sock)
    assert case.count(fired) == 2
    before = case.world.owner(case.sock)
    assert before is not None
    for _ in range(257):  # by now it is not as young as that nothing is written
        case.world.machine.now += LATER // 100
        case.use(case.a, case.sock)
    after = case.world.owner(case.sock)
    assert after is not None
    assert after.when_ns > before.when_ns + LATER


@pytest.mark.parametrize("kind", ["lsm", "fentry", "raw_tp", "kprobe"])
def test_each_way_of_attaching_finds_its_arguments(case: Case, kind: str) -> None:
    case.use(case.a, case.sock, "send", kind)
    assert case.learnt(case.sock) == "alice"


@pytest.mark.parametrize(("family", "saddr", "daddr"), [(AF_INET6, "fd00::1", "fd00::2"), (AF_INET6, "::1", "::1")])
def test_names_of_ipv6_sockets(case: Case, family: int, saddr: str, daddr: str) -> None:
    sock = case.kernel.socket(family=family, saddr=saddr, daddr=daddr, ifindex=7)
    name = case.event(sock).name
    assert name[1:6] == (7, AF_INET6, 40000, 443, 0)
    assert name[6:] == tuple(socket.inet_pton(socket.AF_INET6, text) for text in (saddr, daddr))


def test_a_mapped_address_is_one_of_ipv4(case: Case) -> None:
    sock = case.kernel.socket(family=AF_INET6, saddr="::ffff:10.0.0.1", daddr="::ffff:10.0.0.2")
    assert case.event(sock).name == case.event(case.sock).name


def test_fields_of_an_event(case: Case) -> None:
    more = {
        "struct inet_connection_sock.icsk_ca_state": 4,
        "struct inet_connection_sock.icsk_retransmits": 3,
        "struct inet_connection_sock.icsk_pending": 1,
        "struct tcp_sock.srtt_us": 8000,
        "struct tcp_sock.snd_cwnd": 10,
        "struct tcp_sock.total_retrans": 5,
        "struct tcp_sock.undo_marker": 77,
    }
    sock = case.kernel.change(case.sock, more=more)
    skb = case.kernel.allocate()
    row = case.world.programs.layout["struct sk_buff"]
    cb = row.fields["cb"].offset  # type: ignore[union-attr]
    case.kernel.set(skb + cb, "struct tcp_skb_cb", "seq", 1000)
    case.kernel.set(skb + cb, "struct tcp_skb_cb", "end_seq", 2448)
    error = -11 & 0xFFFFFFFF
    finish(case.world.softirq("retransmit", case.a, sock.address, skb, error))
    (event,) = case.world.events()
    assert event.sk == sock.address
    assert event.fields == {
        "inode": sock.inode, "err": -11, "seq": 1000, "end_seq": 2448, "srtt_us": 8000, "snd_cwnd": 10,
        "total_retrans": 5, "undo_marker": 77, "type": 0, "found": 0, "state": 1, "ca_state": 4, "pending": 1,
        "retransmits": 3, "kern": 0, "stale": 0,
    }  # fmt: skip
    assert event.owner is None


UNLEARNABLE: dict[str, dict[str, Any]] = {
    "netlink-xfrm": {"family": AF_NETLINK, "protocol": 6, "type": SOCK_RAW},
    "netlink-of-stream-type": {"family": AF_NETLINK, "protocol": 6},
    "raw": {"type": SOCK_RAW},
    "udp": {"protocol": 17, "type": 2},
    "unix": {"family": 1, "protocol": 0},
    "kernel's-own": {"kern": 1},
    "closed": {"state": TCP_CLOSE},
    "softirq": {"owned": 0},
}


@pytest.mark.parametrize("name", UNLEARNABLE)
def test_nothing_is_learnt_of_what_is_no_process_s_connection(case: Case, name: str) -> None:
    if case.name.endswith("old") and name == "kernel's-own":
        pytest.skip("this kernel does not tell")
    sock = case.kernel.socket(**UNLEARNABLE[name])
    case.use(case.a, sock)  # tcp_sendmsg_locked(): with the lock
    assert case.world.owner(sock) is None
    assert not case.world.public()
    assert not case.world.settled(sock, case.a)
    assert case.count(COUNTER_FIRED + numbers()["send"]) == 0
    case.use(case.a, case.kernel.change(sock, **{**VALUES, "owned": sock.owned or 1}))
    assert case.learnt(sock) == "alice"


VALUES = {"family": socket.AF_INET, "protocol": 6, "type": 1, "kern": 0, "state": 1}


def test_a_hook_that_comes_without_the_lock_does_not_ask_for_it(case: Case) -> None:
    sock = case.kernel.socket(owned=0)
    case.use(case.a, sock, "send", "func")
    assert case.learnt(sock) == "alice"


def test_mptcp_s_protocol_is_learnt(case: Case) -> None:
    sock = case.kernel.socket(protocol=IPPROTO_MPTCP if not case.name.endswith("old") else 6)
    case.use(case.a, sock)
    assert case.learnt(sock) == "alice"


def test_who_accepts_a_connection_of_the_kernel_s_has_it(case: Case) -> None:
    sock = case.kernel.socket(kern=1)
    case.use(case.a, sock, "accept", "func")
    assert case.learnt(sock) == "alice"


def test_who_connects_learns_a_closed_socket_but_its_name_is_not_told_yet(case: Case) -> None:
    sock = case.kernel.socket(state=TCP_CLOSE)
    case.use(case.a, sock, "socket_connect", "lsm")
    assert case.learnt(sock) == "alice"
    assert not case.world.public()
    case.use(case.a, case.kernel.change(sock, state=TCP_SYN_SENT), "connect", "func")
    owner = case.world.owner(sock)
    assert owner is not None
    assert (owner.how, owner.flags) == ("connect", 0)
    assert len(case.world.public()) == 1


@pytest.mark.parametrize("settings", [{"TASK_BTF": 1}, {"TASK_BTF": 1, "ARG_BTF": 1}])
def test_typed_loads_say_the_same_as_reads(settings: dict[str, Any]) -> None:
    case = Case("x86_64", 3)
    case.use(case.a, case.sock, "send", "lsm", **settings)
    assert case.learnt(case.sock) == "alice"
    other = case.kernel.socket(family=AF_NETLINK, protocol=6)
    case.use(case.a, other, "send", "lsm", **settings)
    assert case.world.owner(other) is None
    attached = case.world.programs.attach("send", "lsm", **settings)
    untyped = case.kernel.cpu(case.a).run(attached.program, attached.context(case.sock.above))
    with pytest.raises(Fault):  # where the verifier knows no types, there are none
        finish(untyped)


def test_a_kernel_thread_takes_no_socket_from_a_process_but_may_have_its_own(case: Case) -> None:
    thread = case.kernel.task(50, 40, "kworker", PF_KTHREAD)
    case.use(thread, case.sock)
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert (owner.how, owner.tgid, owner.users, owner.opener_how) == ("kernel", 0, 0, "kernel")
    case.use(case.a, case.sock)
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert (owner.comm, owner.users, owner.opener) == ("alice", 1, 100)
    case.use(thread, case.sock)
    assert case.learnt(case.sock) == "alice"
    case.use(case.a, case.sock)
    assert case.learnt(case.sock) == "alice"


def test_users_are_counted_once_and_told_of_when_there_are_too_many(case: Case) -> None:
    tasks = [case.kernel.task(1000 + n, 7000 + n, f"user-{n}") for n in range(8)]
    for n, task in enumerate(tasks):
        case.use(tasks[0], case.sock)
        case.use(task, case.sock)
        owner = case.world.owner(case.sock)
        assert owner is not None
        assert owner.users == min(n + 1, 7)
        assert owner.opener == 1000


def test_late_is_who_was_not_seen_to_begin(case: Case) -> None:
    sock = case.kernel.socket(sport=41000)
    case.use(case.a, sock, "accept", "func")
    case.use(case.b, sock)
    case.use(case.a, case.sock)
    owners = [case.world.owner(one) for one in (sock, case.sock)]
    assert [owner and owner.flags for owner in owners] == [0, OWNER_LATE]


def test_a_socket_that_the_kernel_puts_other_data_into_is_lent(case: Case) -> None:
    """Told by who else in the kernel works on it; a place in a group of SO_REUSEPORT sockets is nobody."""
    for data, flag in ((0, 0), (2, 0), (0x1001, OWNER_LENT), (0, 0)):
        case.kernel.change(case.sock, more={"struct sock.sk_user_data": data})
        case.world.machine.now += LATER
        case.use(case.a, case.sock, "accept", "func")
        case.use(case.b, case.sock)  # with the lock
        owner = case.world.owner(case.sock)
        assert owner is not None
        assert owner.flags == flag
    case.kernel.change(case.sock, more={"struct sock.sk_user_data": 0x1001})
    case.use(case.a, case.sock, "send", "func")  # sendmsg() itself
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert owner.flags == 0


@pytest.mark.parametrize("hook", ["send", "receive", "shutdown"])
def test_what_security_modules_are_asked_of_one_is_lent_too(case: Case, hook: str) -> None:
    """The kernel asks them when it sends for somebody else, by KCM for one, as when he sends himself."""
    case.kernel.change(case.sock, more={"struct sock.sk_user_data": 0x1001})
    case.use(case.a, case.sock, hook, "lsm")
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert owner.flags & OWNER_LENT


@pytest.mark.parametrize(
    ("gfp", "is_lent"),
    [(0xCC0, False), (0x24000C0, False), (0xC00, True), (0xC40, True), (0x820, True), (0, True)],
    ids=["GFP_KERNEL", "GFP_KERNEL of Linux 4.9", "GFP_NOIO", "GFP_NOFS", "GFP_ATOMIC", "none"],
)
@pytest.mark.parametrize(
    ("hook", "kind"), [("send", "fentry"), ("send", "lsm"), ("connect", "func"), ("accept", "func")]
)
def test_a_socket_that_must_not_wait_for_what_it_serves_is_lent(
    case: Case, gfp: int, is_lent: bool, hook: str, kind: str
) -> None:
    case.kernel.change(case.sock, more={"struct sock.sk_allocation": gfp})
    case.use(case.a, case.sock, hook, kind)
    owner = case.world.owner(case.sock)
    assert owner is not None
    assert bool(owner.flags & OWNER_LENT) is is_lent


def test_listeners_of_one_name_are_shared(case: Case) -> None:
    listen: dict[str, Any] = {"state": TCP_LISTEN, "dport": 0, "daddr": "0.0.0.0", "sport": 80}
    one, other = case.kernel.socket(**listen), case.kernel.socket(**listen)
    case.use(case.a, one, "listen", "func")
    ((_, public),) = case.world.public().items()
    assert public is not None
    assert public.flags == 0
    case.use(case.b, other, "listen", "func")
    ((_, public),) = case.world.public().items()
    assert public is not None
    assert public.flags == OWNER_SHARED
    assert (case.learnt(one), case.learnt(other)) == ("alice", "bob")
    case.use(case.b, other, "listen", "func")
    ((_, public),) = case.world.public().items()
    assert public is not None
    assert public.flags == OWNER_SHARED, "and so it stays"


def test_a_syn_ack_is_the_listener_s(case: Case) -> None:
    listener = case.kernel.socket(state=TCP_LISTEN, dport=0, daddr="0.0.0.0", sport=80, ifindex=3)
    case.use(case.a, listener, "listen", "func")
    request = case.kernel.request(Socket(0, 0, 0, saddr="10.0.0.1", daddr="10.9.9.9", sport=80, dport=5555, netns=1))
    finish(case.world.softirq("synack", case.idle, listener.address, request))
    (event,) = case.world.events()
    assert event.owner is not None
    assert event.owner.comm == "alice"
    assert (event.fields["type"], event.fields["state"], event.fields["inode"]) == (1, 3, listener.inode)
    assert event.name[:5] == (case.netns, 3, socket.AF_INET, 80, 5555)
    assert event.name[7] == socket.inet_aton("10.9.9.9") + bytes(12)


def test_an_owner_of_an_earlier_socket_is_stale(case: Case) -> None:
    case.use(case.a, case.sock)
    sock = case.kernel.socket(case.sock.address)
    event = case.event(sock)
    assert event.owner is None
    assert (event.fields["found"], event.fields["stale"]) == (0, 1)
    assert case.count(COUNTER_STALE) == 1
    case.use(case.b, sock)
    owner = case.world.owner(sock)
    assert owner is not None
    assert (owner.comm, owner.users, owner.opener) == ("bob", 1, 200)
    assert case.event(sock).owner == owner


def test_an_orphan_keeps_its_owner_by_its_name(case: Case) -> None:
    case.use(case.a, case.sock)
    event = case.event(case.kernel.change(case.sock, above=0))
    assert event.owner is not None
    assert (event.owner.comm, event.fields["inode"]) == ("alice", 0)
    changes: list[dict[str, Any]] = [{"sport": 1}, {"dport": 1}, {"daddr": "10.0.0.3"}, {"netns": 5}]
    if not case.netns:
        changes.pop()
    for change in changes:
        assert case.event(case.kernel.change(case.sock, above=0, **change)).owner is None, change


def subflow(case: Case, msk: Socket, **values: Any) -> Socket:
    """A TCP socket of an MPTCP connection: the context that its ULP data points at names the socket above."""
    ops, data = case.kernel.allocate(), case.kernel.allocate()
    case.kernel.set_text(ops, "struct tcp_ulp_ops", "name", "mptcp")
    case.kernel.set(data, "struct mptcp_subflow_context", "conn", msk.address)
    sock = case.kernel.socket(held=False, kern=1, **values)
    more = {
        "struct inet_connection_sock.icsk_ulp_ops": ops,
        "struct inet_connection_sock.icsk_ulp_data": data,
    }
    return case.kernel.change(sock, more=more)


@pytest.mark.parametrize("case", [("x86_64", 1), ("arm", 1), ("s390x", 1)], indirect=True)
def test_who_holds_the_mptcp_socket_owns_its_subflows(case: Case) -> None:
    """A subflow is the kernel's own, whoever was current when it was made: nothing is learnt of it."""
    msk = case.kernel.socket(protocol=IPPROTO_MPTCP, sport=45000)
    case.use(case.a, msk)
    sub = subflow(case, msk)
    case.use(case.b, sub, "connect", "func")
    assert case.world.owner(sub) is None
    for held in (True, False):
        if not held:
            case.kernel.change(msk, above=0)
        event = case.event(sub)
        assert event.owner is not None
        assert (event.owner.comm, event.fields["found"], event.ulp) == ("alice", 2, "mptcp")
        assert event.fields["inode"] == (msk.inode if held else 0)
    assert event.fields["kern"] == 1


@pytest.mark.parametrize("case", [("x86_64", 1), ("arm", 1), ("s390x", 1)], indirect=True)
def test_a_later_mptcp_socket_at_the_address_has_not_the_earlier_one_s_owner(case: Case) -> None:
    msk = case.kernel.socket(protocol=IPPROTO_MPTCP)
    case.use(case.a, msk)
    sub = subflow(case, case.kernel.socket(msk.address, protocol=IPPROTO_MPTCP))
    assert case.event(sub).owner is None


def test_the_end_of_a_socket(case: Case) -> None:
    case.use(case.a, case.sock)
    finish(case.world.destroy(case.sock, case.idle))
    assert case.world.owner(case.sock) is None
    assert not case.world.public()
    assert not case.world.settled(case.sock, case.a)
    assert case.count(COUNTER_DELETED) == 1
    finish(case.world.destroy(case.sock, case.idle))
    assert case.count(COUNTER_DELETED) == 1


def test_a_closed_socket_gives_its_own_name_up_and_keeps_its_owner(case: Case) -> None:
    twin = case.kernel.socket()  # of the same name
    case.use(case.a, case.sock)
    case.use(case.b, twin)
    finish(case.world.softirq("close", case.idle, case.sock.address, 1, 8))
    finish(case.world.closes(case.sock, case.idle))
    ((_, public),) = case.world.public().items()
    assert public is not None
    assert public.comm == "bob", "a name that is another's"
    assert case.learnt(case.sock) == "alice"
    finish(case.world.closes(twin, case.idle))
    assert not case.world.public()
    assert case.learnt(twin) == "bob"


@pytest.mark.parametrize("known", [True, False])
def test_a_closed_socket_takes_a_seed_s_entry_with_it(case: Case, known: bool) -> None:
    """The port may be gone already: tcp_disconnect() clears skc_num."""
    case.use(case.a, case.sock)
    ((key, _),) = case.world.public().items()
    public = case.world.machine.hashes["socket_to_pid"]
    if not known:
        finish(case.world.evict("owner_by_sock", case.world.key(case.sock)))
        case.kernel.set(case.sock.address, "struct sock", "__sk_common.skc_num", 0)
    value = bytearray(public.get(key) or b"")
    value[56:64] = bytes(8)  # the address: a seed has none
    finish(public.update(key, bytes(value), 0))
    finish(case.world.softirq("close", case.idle, case.sock.address, 1, TCP_CLOSE))
    assert not case.world.public()


def test_a_socket_that_connects_elsewhere_has_one_name(case: Case) -> None:
    case.use(case.a, case.sock)
    moved = case.kernel.change(case.sock, dport=444)
    case.use(case.a, moved, "connect", "func")
    assert len(case.world.public()) == 1
    assert case.event(moved).name[4] == 444


def test_the_name_at_an_exec_and_the_time_of_an_exit(case: Case) -> None:
    thread = case.kernel.task(100, 5000, "alice", tid=103)
    for hook in ("exec", "exit"):
        finish(case.world.softirq(hook, thread, 0, 0, 0))
    names, ends = (case.world.machine.hashes[name] for name in ("exec_names", "exited"))
    order = case.world.order
    (key,) = names.keys
    value = names.get(key) or b""
    assert int.from_bytes(key, order) == 100
    assert (int.from_bytes(value[:8], order), value[16:]) == (5000, b"alice".ljust(16, b"\0"))
    assert 0 < int.from_bytes(value[8:16], order) <= case.world.machine.now
    assert not ends.keys, "a thread is no process"
    finish(case.world.softirq("exit", case.a, 0, 0, 0))
    (key,) = ends.keys
    assert (int.from_bytes(key[:8], order), int.from_bytes(key[8:12], order)) == (5000, 100)
    assert int.from_bytes(ends.get(key) or b"", order) == case.world.machine.now


def test_only_what_the_filters_let_through(case: Case) -> None:
    case.use(case.a, case.sock)
    passing = {"FILTER_PID": 100, "FILTER_NETNS": case.netns, "FILTER_PORT": 443}
    for name, value in passing.items():
        before = len(case.world.events())
        finish(case.world.retransmit(case.sock, case.idle, **{name: value}))
        assert len(case.world.events()) == before + 1, name
        finish(case.world.retransmit(case.sock, case.idle, **{name: value + 1}))
        assert len(case.world.events()) == before + 1, name
    finish(case.world.retransmit(case.sock, case.idle, FILTER_PORT=40000))
    stranger = case.kernel.socket(sport=9)
    finish(case.world.retransmit(stranger, case.idle, FILTER_PID=101))
    assert [event.owner is None for event in case.world.events()[-2:]] == [False, True]


def test_counting_by_process_and_socket(case: Case) -> None:
    case.use(case.a, case.sock)
    thread = case.kernel.task(50, 40, "kworker", PF_KTHREAD)
    kernel_s = case.kernel.socket(sport=2)
    case.use(thread, kernel_s)
    for sock in (case.sock, case.sock, kernel_s, case.kernel.socket(sport=3)):
        finish(case.world.retransmit(sock, case.idle, COUNT=1))
    order = case.world.order
    counts = case.world.machine.hashes["counts"]
    found = {
        (int.from_bytes(key[64:68], order), key[72:].rstrip(b"\0")): int.from_bytes(counts.get(key) or b"", order)
        for key in counts.keys
    }
    assert found == {(100, b"alice"): 2, (0, b""): 1}
    assert case.count(COUNTER_LOST) == 1, "the third one found the map full"
    assert case.count(COUNTER_EVENTS) == 4
    assert not case.world.events()


def test_a_record_without_room_is_counted(case: Case) -> None:
    case.world.machine.events.full = True
    finish(case.world.retransmit(case.sock, case.idle))
    assert (case.count(COUNTER_EVENTS), case.count(COUNTER_LOST)) == (1, 1)


def test_what_each_way_of_attaching_must_return(case: Case) -> None:
    for kind, result in (("raw_tp", 0), ("tracepoint", 1)):
        for hook, more in (("close", (1, 7)), ("retransmit", (0, 0)), ("synack", (0,)), ("destroy", ())):
            assert finish(case.world.softirq(hook, case.a, case.sock.address, *more, kind=kind)) == result, hook


def test_layouts_are_whole() -> None:
    """No field of one object lies over another: else what is told apart here may not be."""
    made = programs("arm", 1)
    rows = layout(made.image, made.arch, 1)
    for group in (("struct sock", "struct tcp_sock"), ("struct socket", "struct socket_alloc")):
        taken: list[int] = []
        for name in group:
            row = rows[name]
            assert row is not None
            for field in row.fields.values():  # type: ignore[union-attr]
                taken += range(field.offset, field.offset + field.size) if field else ()
        assert len(taken) == len(set(taken))
