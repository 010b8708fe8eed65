"""A kernel made up around the machine: sockets and tasks, at a layout of the test's choice."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Any

from sockpid.table.layout import Layout, Struct

from .layouts import OBJECT, SAME_OBJECT, put
from .machine import Cpu, Machine
from .memory import OBJECTS_32, OBJECTS_64, PAGE_BITS

AF_INET, AF_INET6, AF_NETLINK = 2, 10, 16
SOCK_STREAM, SOCK_RAW = 1, 3
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_CLOSE, TCP_LISTEN = 1, 2, 7, 10
IPPROTO_TCP, IPPROTO_MPTCP = 6, 262
PF_KTHREAD = 0x00200000
GFP_KERNEL = 0xCC0
NETNS = 4026531840
COMMON = "__sk_common."


@dataclass(frozen=True)
class Task:
    """A thread; its leader's name and start are those of the process."""

    address: int
    tid: int
    tgid: int
    start_ns: int
    comm: str

    @property
    def pid_tgid(self) -> int:
        return self.tgid << 32 | self.tid


@dataclass(frozen=True)
class Socket:
    """A struct sock, with what is in it. above: address of the struct socket, 0 for none."""

    address: int
    above: int
    inode: int
    saddr: str = "10.0.0.1"
    daddr: str = "10.0.0.2"
    sport: int = 40000
    dport: int = 443
    family: int = AF_INET
    netns: int = NETNS
    ifindex: int = 0
    state: int = TCP_ESTABLISHED
    type: int = SOCK_STREAM
    protocol: int = IPPROTO_TCP
    kern: int = 0
    owned: int = 1
    more: dict[str, int] = field(default_factory=dict)
    """Other fields: "struct tcp_sock.srtt_us"."""


class Kernel:
    """Makes objects, and changes them."""

    def __init__(self, machine: Machine, layout: Layout, pointer_size: int) -> None:
        self.machine, self.layout = machine, layout
        self._region = OBJECTS_64 if pointer_size == 8 else OBJECTS_32
        self._order = machine.memory.order
        self._net: dict[int, int] = {}
        self.inodes = 1000
        blank = bytearray(b"\x5a") * OBJECT
        for name in SAME_OBJECT[0]:
            row = layout[name]
            for found in row.fields.values() if isinstance(row, Struct) else ():
                if found is not None:
                    blank[found.offset : found.offset + found.size] = bytes(found.size)
        self._blank = bytes(blank)
        """A struct sock of zeros, with other things between the fields that are read."""

    def allocate(self) -> int:
        return self.machine.memory.allocate(self._region, OBJECT)

    def set(self, at: int, name: str, path: str, value: int) -> None:
        """Writes a field; one that this kernel does not have stays unwritten."""
        row = self.layout[name]
        found = row.fields[path] if isinstance(row, Struct) else None
        if found is not None:
            put(self.machine.memory.view(at, found.offset + found.size), found, value, self._order)

    def set_text(self, at: int, name: str, path: str, value: str) -> None:
        raw = value.encode().ljust(16, b"\0")
        self.set(at, name, path, int.from_bytes(raw, self._order))

    def task(self, tgid: int, start_ns: int, comm: str, flags: int = 0, tid: int = 0) -> Task:
        """A thread of a process; tid 0: its leader."""
        leader = self._task(start_ns, comm, flags)
        self.set(leader, "struct task_struct", "group_leader", leader)
        if tid in (0, tgid):
            return Task(leader, tgid, tgid, start_ns, comm)
        thread = self._task(start_ns + 5, "worker", flags)
        self.set(thread, "struct task_struct", "group_leader", leader)
        return Task(thread, tid, tgid, start_ns, comm)

    def _task(self, start_ns: int, comm: str, flags: int) -> int:
        at = self.allocate()
        self.set(at, "struct task_struct", "flags", flags)
        self.set(at, "struct task_struct", "start_boottime", start_ns)
        self.set(at, "struct task_struct", "real_start_time", start_ns)
        self.set_text(at, "struct task_struct", "comm", comm)
        return at

    def net(self, inum: int) -> int:
        if inum not in self._net:
            self._net[inum] = self.allocate()
            self.set(self._net[inum], "struct net", "ns.inum", inum)
        return self._net[inum]

    def socket(self, at: int = 0, held: bool = True, **values: Any) -> Socket:
        """A new socket; at: of a struct sock that was freed, whose address it gets. held: it has a struct socket."""
        address = at or self.allocate()
        self.machine.memory.pages[address >> PAGE_BITS][:] = self._blank
        above = inode = 0
        if held:
            self.inodes += 1
            above, inode = self.allocate(), self.inodes
            self.set(above, "struct socket", "sk", address)
            self.set(above, "struct socket_alloc", "vfs_inode.i_ino", inode)
        return self.write(replace(Socket(address, above, inode), **values))

    def change(self, sock: Socket, **values: Any) -> Socket:
        """The same socket with other values: bound, connected, closed, orphaned (above=0)."""
        return self.write(replace(sock, **values))

    def write(self, sock: Socket) -> Socket:
        at = sock.address
        self.name(at, sock)
        for path, value in {
            "sk_socket": sock.above,
            "sk_type": sock.type,
            "sk_protocol": sock.protocol,
            "sk_kern_sock": sock.kern,
            "sk_lock.owned": sock.owned,
            "sk_allocation": GFP_KERNEL,
        }.items():
            self.set(at, "struct sock", path, value)
        self.set(at, "struct inet_sock", "inet_sport", self.be16(sock.sport))
        for where, value in sock.more.items():
            name, _, path = where.partition(".")
            self.set(at, name, path, value)
        return sock

    def name(self, at: int, sock: Socket) -> None:
        """The struct sock_common of a socket, or of a request."""
        self.set(at, "struct sock", COMMON + "skc_family", sock.family)
        self.set(at, "struct sock", COMMON + "skc_num", sock.sport)
        self.set(at, "struct sock", COMMON + "skc_dport", self.be16(sock.dport))
        self.set(at, "struct sock", COMMON + "skc_state", sock.state)
        self.set(at, "struct sock", COMMON + "skc_bound_dev_if", sock.ifindex)
        self.set(at, "struct sock", COMMON + "skc_net.net", self.net(sock.netns))
        pairs = (("skc_rcv_saddr", "skc_v6_rcv_saddr", sock.saddr), ("skc_daddr", "skc_v6_daddr", sock.daddr))
        for v4, v6, text in pairs:
            raw = ipaddress.ip_address(text).packed
            self.set(at, "struct sock", COMMON + (v4 if len(raw) == 4 else v6), int.from_bytes(raw, self._order))

    def be16(self, value: int) -> int:
        return int.from_bytes(value.to_bytes(2, "big"), self._order)

    def request(self, sock: Socket) -> int:
        """A struct request_sock of the connection that `sock` describes."""
        row = self.layout["struct request_sock"]
        assert isinstance(row, Struct)
        common = row.fields["__req_common"]
        assert common is not None
        at = self.allocate()
        self.name(at + common.offset, sock)
        return at

    def cpu(self, task: Task, number: int = 0, typed: bool = False) -> Cpu:
        return Cpu(self.machine, task.address, task.pid_tgid, number, typed)
