"""Every program of an image, run for what it is there for on the memory of one kernel.

The programs are patched with one layout, the memory is laid out by another: where both speak of the same kernel, all
that is expected here holds.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from sockpid.arch import Arch
from sockpid.bpf.link import OF_TARGET
from sockpid.event import event
from sockpid.image.hooks import HOOKS, SET_STATE, SOCKET, Hook, Target
from sockpid.image.image import Image
from sockpid.table.layout import Field, Layout, Struct

from .kernel import (
    AF_INET6,
    IPPROTO_MPTCP,
    NETNS,
    PF_KTHREAD,
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    Socket,
    Task,
)
from .layouts import put
from .programs import CONTEXT, RECORD, Attached, Programs
from .world import Event, World, finish

ERROR = 0xFFFFFFF5  # -EAGAIN
FIELDS = {
    "struct inet_connection_sock.icsk_ca_state": ("ca_state", 4),
    "struct inet_connection_sock.icsk_retransmits": ("retransmits", 3),
    "struct inet_connection_sock.icsk_pending": ("pending", 1),
    "struct tcp_sock.srtt_us": ("srtt_us", 0x81020304),
    "struct tcp_sock.snd_cwnd": ("snd_cwnd", 0x81050607),
    "struct tcp_sock.total_retrans": ("total_retrans", 0x81080900),
    "struct tcp_sock.undo_marker": ("undo_marker", 0x810A0B0C),
}
"""Kernel field -> the event's, and a value: no byte of it is 0, or like another."""
SEQ, IFINDEX = 0x91A2B3C4, 0x01020304
LENT = 4  # enum owner_flags (bpf_bytecode/sockpid.h)
STARTED = 0x0102030405060708
NAME = "alice-and-more"


class Kind(NamedTuple):
    """Kernels that are alike for the programs. layout: where these believe that everything is; memory: where it is."""

    image: Image
    arch: Arch
    layout: Layout
    releases: tuple[str, ...]
    memory: Layout


class Host:
    """A kernel of one kind, with two processes, and the programs of it."""

    def __init__(self, kind: Kind, programs: Programs) -> None:
        self.kind = kind
        self.world = World(programs, {"counts": 2}, kind.memory)
        self.kernel, self.order = self.world.kernel, self.world.order
        self.kernel.inodes = 0x01020304
        self.alice, self.bob = self.kernel.task(100, STARTED, NAME), self.kernel.task(200, 6000, "bob")
        self.thread = self.kernel.task(100, STARTED, NAME, tid=103)
        self.idle = self.kernel.task(0, 0, "swapper")

    def context(self, target: Target, mechanism: str, arguments: tuple[int, ...]) -> bytes:
        """What the kernel hands to a program: by words of the architecture's calling convention, or of a tracepoint's
        record; not as the image says. What lies between them is not 0."""
        data = memoryview(bytearray(b"\xa5" * CONTEXT))
        for n, value in enumerate(arguments):
            if mechanism.startswith("kprobe"):
                registers = self.kind.memory["struct pt_regs"]
                assert isinstance(registers, Struct)
                field = registers.fields.get(self.kind.arch.args[n]) if n < len(self.kind.arch.args) else None
            elif target.kind == "tracepoint":
                name = target.fields[n] if n < len(target.fields) else None
                field = RECORD[name] if name and name not in target.fields[:n] else None
            else:
                field = Field(64 * n, 64)
            if field is not None:
                put(data, field, value & (1 << field.bit_size) - 1, self.order)
        return bytes(data)

    def run(self, attached: Attached, task: Task, context: bytes, typed: bool = False) -> int:
        return finish(self.kernel.cpu(task, typed=typed).run(attached.program, context))

    def event(self, sock: Socket, skb: int = 0) -> Event:
        finish(self.world.softirq("retransmit", self.idle, sock.address, skb, ERROR))
        return self.world.events()[-1]

    def bits(self, field: str) -> int:
        """How many a field has; 0: there is none."""
        name, _, path = field.partition(".")
        row = self.kind.memory[name]
        found = row.fields.get(path) if isinstance(row, Struct) else None
        return 0 if found is None else found.bit_size

    def has(self, field: str) -> bool:
        return self.bits(field) > 0


def places() -> Iterator[tuple[Hook, Target, str]]:
    """Every hook at every target by every mechanism."""
    for hook in HOOKS:
        for target in hook.targets:
            for mechanism in OF_TARGET[target.kind]:
                yield hook, target, mechanism


def attached(host: Host) -> Iterator[tuple[Hook, Target, str, Attached, bool]]:
    """The program for each of these, as read by calls and, where the verifier knows types, by loads."""
    for hook, target, mechanism in places():
        if mechanism.startswith("kprobe") and host.kind.memory["struct pt_regs"] is None:
            continue
        programs = host.world.programs
        yield hook, target, mechanism, programs.make(hook, target, mechanism), False
        # Verifiers that know types came later than the field's new name.
        if mechanism in ("lsm", "fentry") and host.has("struct task_struct.start_boottime"):
            yield hook, target, mechanism, programs.make(hook, target, mechanism, TASK_BTF=1, ARG_BTF=1), True


def play(kind: Kind) -> None:
    """Raises AssertionError where a program does not do what it has to, Fault where it reads what is nobody's, and what
    relocate() raises."""
    programs = Programs(kind.image, kind.arch, kind.layout)
    names_and_kinds_of_sockets(Host(kind, programs))
    upper_layers(Host(kind, programs))
    subflows(Host(kind, programs))
    for hook, target, mechanism, program, typed in attached(Host(kind, programs)):
        host = Host(kind, programs)
        where = f"{hook.name} at {mechanism} {target.name}{' typed' if typed else ''}"
        {"tcp_use": learns, "tcp_destroy": forgets, "tcp_set_state": closes, "tcp_retransmit": retransmits}.get(
            hook.source or hook.prog, others
        )(host, hook, target, mechanism, program, typed, where)


def learns(host: Host, hook: Hook, target: Target, mechanism: str, program: Attached, typed: bool, where: str) -> None:
    """A thread of a process does what the hook is there for."""
    settings = dict(hook.settings)
    begins, new = settings.get("SETTING_BEGINS"), settings.get("SETTING_STATE", 0)
    listens = hook.name in ("listen", "socket_listen")
    before = TCP_CLOSE if begins and (target.settings & SET_STATE or target.kind == "lsm") else TCP_ESTABLISHED
    if hook.name == "accept":
        before = TCP_ESTABLISHED
    remote: dict[str, Any] = {"dport": 0, "daddr": "0.0.0.0"} if listens else {}
    if listens and not target.settings & SET_STATE and target.kind != "lsm":
        before = TCP_LISTEN
    sock = host.kernel.socket(state=before, ifindex=IFINDEX, **remote)
    first = sock.above if target.settings & SOCKET else sock.address
    arguments: tuple[int, ...] = (first, 0, 0)
    if target.settings & SET_STATE:
        arguments = (first, TCP_CLOSE, new)
    elif "SETTING_OPTION" in settings:
        arguments = (first, 6, settings["SETTING_OPTION"], 0, 0)
    host.run(program, host.thread, host.context(target, mechanism, arguments), typed)
    owner = host.world.owner(sock)
    assert owner is not None, where
    how = event.HOW[settings["SETTING_HOW"]]
    said = owner.sk, owner.inode, owner.tgid, owner.start_ns, owner.how, owner.comm, owner.users
    assert said == (sock.address, sock.inode, 100, STARTED, how, NAME, 1), where
    assert not owner.flags & LENT, where
    sock = host.kernel.change(sock, state=TCP_LISTEN if listens else TCP_ESTABLISHED)
    seen = host.event(sock)
    assert seen.owner == owner, where
    assert seen.name == name_of(sock), where
    if hook.name not in ("socket_connect", "socket_listen"):
        ((key, public),) = host.world.public().items()
        assert public is not None, where
        assert (public.sk, public.inode, public.tgid) == (sock.address, sock.inode, 100), where
        assert host.world.name_of(key) == seen.name, where


def forgets(host: Host, hook: Hook, target: Target, mechanism: str, program: Attached, typed: bool, where: str) -> None:
    sock = _used(host)
    host.run(program, host.idle, host.context(target, mechanism, (sock.address, 0, 0)), typed)
    assert host.world.owner(sock) is None, where
    assert not host.world.public(), where


def closes(host: Host, hook: Hook, target: Target, mechanism: str, program: Attached, typed: bool, where: str) -> None:
    """The name goes, the owner stays."""
    sock = _used(host)
    arguments = (sock.address, TCP_ESTABLISHED, TCP_CLOSE) if target.settings & SET_STATE else (sock.address, TCP_CLOSE)
    host.run(program, host.idle, host.context(target, mechanism, arguments), typed)
    assert not host.world.public(), where
    owner = host.world.owner(sock)
    assert owner is not None, where
    # A seed has no address, and the port may be gone already: tcp_disconnect() clears skc_num.
    _use(host, host.alice, sock)
    ((key, _),) = host.world.public().items()
    public = host.world.machine.hashes["socket_to_pid"]
    value = bytearray(public.get(key) or b"")
    value[56:64] = bytes(8)
    finish(public.update(key, bytes(value), 0))
    finish(host.world.evict("owner_by_sock", host.world.key(sock)))
    host.kernel.set(sock.address, "struct sock", "__sk_common.skc_num", 0)
    host.run(program, host.idle, host.context(target, mechanism, arguments), typed)
    assert not host.world.public(), where


def retransmits(
    host: Host, hook: Hook, target: Target, mechanism: str, program: Attached, typed: bool, where: str
) -> None:
    more = {name: value for name, (_, value) in FIELDS.items()}
    sock = host.kernel.change(_used(host, ifindex=IFINDEX), more=more)
    skb = host.kernel.allocate()
    row = host.kind.memory["struct sk_buff"]
    assert isinstance(row, Struct)
    cb = row.fields["cb"]
    assert cb is not None
    host.kernel.set(skb + cb.offset, "struct tcp_skb_cb", "seq", SEQ)
    host.kernel.set(skb + cb.offset, "struct tcp_skb_cb", "end_seq", SEQ + 1448)
    tells = "SETTING_RETRANSMIT_ERR" in target.settings
    host.run(program, host.idle, host.context(target, mechanism, (sock.address, skb, ERROR if tells else 0)), typed)
    (seen,) = host.world.events()
    assert seen.owner is not None, where
    assert (seen.sk, seen.owner.comm, seen.owner.tgid) == (sock.address, "bob", 200), where
    expected = {
        "inode": sock.inode, "err": -11 if tells else 0, "seq": SEQ, "end_seq": SEQ + 1448, "type": 0, "found": 1,
        "state": TCP_ESTABLISHED, "kern": 0, "stale": 0, **dict(FIELDS.values()),
    }  # fmt: skip
    assert seen.fields == expected, where
    assert seen.name == name_of(sock), where


def others(host: Host, hook: Hook, target: Target, mechanism: str, program: Attached, typed: bool, where: str) -> None:
    if hook.name == "synack":
        listener = host.kernel.socket(state=TCP_LISTEN, dport=0, daddr="0.0.0.0", sport=80, ifindex=3)
        _use(host, host.alice, listener)
        asked = Socket(0, 0, 0, saddr="10.0.0.1", daddr="10.9.9.9", sport=80, dport=5555, netns=1)
        request = host.kernel.request(asked)
        host.run(program, host.idle, host.context(target, mechanism, (listener.address, request)), typed)
        (seen,) = host.world.events()
        assert seen.owner is not None, where
        assert (seen.owner.comm, seen.fields["type"], seen.fields["inode"]) == (NAME, 1, listener.inode), where
        assert seen.name[:5] == (NETNS, 3, socket.AF_INET, 80, 5555), where
        assert seen.name[7] == socket.inet_aton("10.9.9.9") + bytes(12), where
        return
    host.run(program, host.thread if hook.name == "exec" else host.alice, host.context(target, mechanism, (0, 0, 0)))
    made = host.world.machine.hashes["exec_names" if hook.name == "exec" else "exited"]
    (key,) = made.keys
    value = made.get(key) or b""
    if hook.name == "exec":
        assert int.from_bytes(key, host.order) == 100, where
        assert (int.from_bytes(value[:8], host.order), value[16:].rstrip(b"\0")) == (STARTED, NAME.encode()), where
    else:
        assert (int.from_bytes(key[:8], host.order), int.from_bytes(key[8:12], host.order)) == (STARTED, 100), where


def names_and_kinds_of_sockets(host: Host) -> None:
    for saddr, daddr in (("fd00::1", "fd00::2"), ("::ffff:10.0.0.1", "::ffff:10.0.0.2")):
        sock = host.kernel.socket(family=AF_INET6, saddr=saddr, daddr=daddr, netns=77, sport=65000)
        seen = host.event(sock)
        mapped = ipaddress.ip_address(saddr).ipv4_mapped  # type: ignore[union-attr]
        family = socket.AF_INET if mapped else AF_INET6
        assert seen.name[:5] == (77, 0, family, 65000, 443), saddr
        raw = tuple(ipaddress.ip_address(text).packed for text in (saddr, daddr))
        assert seen.name[6:] == (tuple(one[12:] + bytes(12) for one in raw) if mapped else raw)
    unlearnable: tuple[dict[str, Any], ...] = (
        {"protocol": 17}, {"protocol": 0x206}, {"type": 3}, {"type": 0x101}, {"kern": 1}, {"owned": 0}, {"family": 16},
        {"family": 0x102},
    )  # fmt: skip
    small = {"protocol": host.bits("struct sock.sk_protocol"), "type": host.bits("struct sock.sk_type")}
    for unlearnt in unlearnable:
        if any(value >> small.get(name, 32) for name, value in unlearnt.items()):
            continue  # it does not fit into the field of an old kernel
        sock = host.kernel.socket(**unlearnt)
        _use(host, host.alice, sock)
        if "kern" not in unlearnt or host.has("struct sock.sk_kern_sock"):
            assert host.world.owner(sock) is None, unlearnt
    held = host.kernel.socket(owned=1 << 24)
    _use(host, host.alice, held)
    assert host.world.owner(held) is not None
    kworker = host.kernel.task(50, 40, "kworker", PF_KTHREAD)
    _use(host, kworker, its := host.kernel.socket())
    owner = host.world.owner(its)
    assert owner is not None
    assert owner.how == "kernel"
    own = host.kernel.socket(kern=1)
    assert host.event(own).fields["kern"] == int(host.has("struct sock.sk_kern_sock"))
    for where, value in (
        ("struct sock.sk_user_data", 1 << host.bits("struct sock.sk_user_data") - 8),
        ("struct sock.sk_user_data", 0x1001),
        ("struct sock.sk_allocation", 0x820),
    ):
        sock = host.kernel.socket(more={where: value})
        _use(host, host.alice, sock)
        owner = host.world.owner(sock)
        assert owner is not None
        assert owner.flags & LENT, where
    orphan = _used(host)
    seen = host.event(host.kernel.change(orphan, above=0))
    assert seen.owner is not None
    assert (seen.owner.comm, seen.fields["inode"]) == ("bob", 0)
    assert host.event(host.kernel.change(orphan, above=0, dport=1)).owner is None


def upper_layers(host: Host) -> None:
    """What lies on TCP has a name. Called mptcp where there is no MPTCP, it is followed to nobody."""
    if not host.has("struct inet_connection_sock.icsk_ulp_ops"):
        return
    ops, data = host.kernel.allocate(), host.kernel.allocate()
    above = {"struct inet_connection_sock.icsk_ulp_ops": ops}
    if host.has("struct inet_connection_sock.icsk_ulp_data"):
        above["struct inet_connection_sock.icsk_ulp_data"] = data
    sock = host.kernel.change(_used(host), more=above)
    names = ["tls", "fifteen-letters"]
    if not host.has("struct mptcp_subflow_context.conn"):
        names.append("mptcp")
    for name in names:
        host.kernel.set_text(ops, "struct tcp_ulp_ops", "name", name)
        seen = host.event(sock)
        assert seen.owner is not None
        assert (seen.ulp, seen.owner.comm, seen.fields["found"]) == (name, "bob", 1)


def subflows(host: Host) -> None:
    """The owner of an MPTCP subflow is that of the socket above it, on kernels that have MPTCP."""
    if not host.has("struct mptcp_subflow_context.conn"):
        assert host.kind.memory["struct mptcp_subflow_context"] is None
        return
    msk = host.kernel.socket(protocol=IPPROTO_MPTCP, sport=45000)
    _use(host, host.alice, msk)
    ops, data = host.kernel.allocate(), host.kernel.allocate()
    host.kernel.set_text(ops, "struct tcp_ulp_ops", "name", "mptcp")
    host.kernel.set(data, "struct mptcp_subflow_context", "conn", msk.address)
    sock = host.kernel.socket(held=False, kern=1)
    above = {"struct inet_connection_sock.icsk_ulp_ops": ops, "struct inet_connection_sock.icsk_ulp_data": data}
    seen = host.event(host.kernel.change(sock, more=above))
    assert seen.owner is not None
    assert (seen.owner.comm, seen.fields["found"], seen.ulp) == (NAME, 2, "mptcp")
    assert seen.fields["inode"] == msk.inode


def name_of(sock: Socket) -> tuple[object, ...]:
    """What an IPv4 socket is called in events and in socket_to_pid."""
    addresses = (ipaddress.ip_address(text).packed.ljust(16, b"\0") for text in (sock.saddr, sock.daddr))
    return (sock.netns, sock.ifindex, sock.family, sock.sport, sock.dport, 0, *addresses)


def _use(host: Host, task: Task, sock: Socket) -> None:
    finish(host.world.use(task, sock, "send", "fentry"))


def _used(host: Host, **values: Any) -> Socket:
    """A socket that two processes have used."""
    sock = host.kernel.socket(**values)
    for task in (host.alice, host.bob):
        _use(host, task, sock)
    return sock
