"""Looks into kernel memory without knowing anything of it, by a program that hangs where our own calls pass.

A socket's change of state is such a place. Of each passing, the arguments of the probe, the current task and the memory
that an argument points to are kept; or that at any address. Only one thread is looked at: ours, or one that is named.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Callable, FrozenSet, List, NamedTuple, Optional, Tuple

from sockpid import syscall, uapi
from sockpid.bpf import prog
from sockpid.bpf.link import MECHANISMS, OF_TARGET, Link
from sockpid.bpf.map import Map
from sockpid.errors import AttachError, ProgError, SyscallError
from sockpid.image import image
from sockpid.image.hooks import Target
from sockpid.offsets.calibration import pt_regs

from .peek_prog import ARG0, ARG1, CONFIG, HEADER, SIZE, assemble

SLOTS = 16


class Record(NamedTuple):
    """One time that the probe was passed.

    args: three; where less were asked for, the rest are the last one again. memory: zero where it cannot be read.
    """

    args: Tuple[int, ...]
    task: int
    memory: bytes


class Place(NamedTuple):
    """Where a probe of ours may hang: alternatives, each with the number of arguments to note."""

    targets: Tuple[Tuple[Target, int], ...]


# Every socket that begins to connect, begins to listen or is closed passes here, in the context of whoever does it.
STATE = Place(((Target("raw_tp", "inet_sock_set_state"), 3), (Target("func", "tcp_set_state"), 2)))
# A tail loss probe does not pass the function, but then the timeout does.
RETRANSMIT = Place(((Target("raw_tp", "tcp_retransmit_skb"), 2), (Target("func", "tcp_retransmit_skb"), 2)))
# A raw socket's send, or a datagram for it that finds its buffer full.
RAW = Place((
    (Target("raw_tp", "sock_send_length"), 1),
    (Target("func", "raw_sendmsg"), 1),
    (Target("raw_tp", "sock_rcvqueue_full"), 1),
))  # fmt: skip


class Peek:
    """Maps, and programs while they are needed. Ends with close()."""

    def __init__(self, deny: FrozenSet[str] = frozenset()) -> None:
        """Raises AttachError if nothing of STATE is accepted, ProgError, SyscallError, CapabilityError."""
        self._deny = deny
        self._arch = syscall.machine()
        self._links: List[Link] = []
        self._maps: List[Map] = []
        self.me = self_id()
        try:
            self._config = self._create("config", struct.calcsize(CONFIG), 1)
            self._slots = self._create("slots", struct.calcsize(HEADER) + SIZE, SLOTS)
            self.state = self.attach(STATE)
        except BaseException:
            self.close()
            raise

    def _create(self, name: str, size: int, entries: int) -> Map:
        created = Map.create(image.Map(f"peek_{name}", "BPF_MAP_TYPE_ARRAY", 4, size, entries))
        self._maps.append(created)
        return created

    def attach(self, place: Place) -> Link:
        """Hangs the program on the first target of a place that the kernel accepts; it stays until detach()."""
        reasons: List[Tuple[str, str]] = []
        for target, args in place.targets:
            for name in OF_TARGET[target.kind]:
                mechanism = MECHANISMS[name]
                if mechanism.by_btf_id or name in self._deny:
                    continue
                try:
                    link = mechanism.attach(target.name, self._loader(mechanism.prog_type, mechanism.context, args))
                except (SyscallError, ProgError) as error:
                    reasons.append((f"{name} {target.name}", str(error)))
                    continue
                self._links.append(link)
                return link
        lines = "".join(f"\n  {where}: {reason}" for where, reason in reasons)
        raise AttachError(f"nothing to hang a look into the kernel on:{lines}", reasons)

    def detach(self, link: Link) -> None:
        self._links.remove(link)
        link.close()
        link.prog.close()

    def capture(
        self, action: Callable[[], object], address: int = ARG0, sk: int = 0, thread: Optional[int] = None
    ) -> List[Record]:
        """What passed while `action` ran. thread: pid_tgid of who is looked at (None: us, 0: everybody)."""
        who = self.me if thread is None else thread
        key = struct.pack("=I", 0)
        self._config.update(key, struct.pack(CONFIG, who, address, sk, 0))
        try:
            action()
        finally:
            count = self.passed()
            self._config.update(key, struct.pack(CONFIG, (1 << 64) - 1, 0, 0, 0))  # nobody
        records = []
        for slot in range(min(count, SLOTS)):
            content = self._slots.lookup(struct.pack("=I", slot)) or b""
            records.append(unpack(content, self._arch.pointer_size))
        return records

    def passed(self) -> int:
        """How often the probe was passed in the capture that goes on."""
        value = self._config.lookup(struct.pack("=I", 0)) or bytes(struct.calcsize(CONFIG))
        count: int = struct.unpack(CONFIG, value)[3]
        return count

    def read(self, address: int, size: int = SIZE) -> bytes:
        """Kernel memory; zero where it cannot be read."""
        content = b""
        while len(content) < size:
            at = address + len(content)
            records = self.capture(pass_state, at) if at > ARG1 else []
            if not records:
                return content.ljust(size, b"\0")
            content += records[0].memory
        return content[:size]

    def close(self) -> None:
        for link in reversed(self._links):
            with contextlib.suppress(SyscallError):
                link.close()
            link.prog.close()
        self._links = []
        for created in self._maps:
            created.close()
        self._maps = []

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loader(self, prog_type: int, context: str, args: int) -> Callable[[], prog.Prog]:
        if context == "kprobe":
            registers = pt_regs(self._arch).fields
            offsets = [registers[name].offset for name in self._arch.args[:args]]  # type: ignore[union-attr]
            size = self._arch.pointer_size
        else:
            offsets, size = [8 * n for n in range(args)], 8

        def load() -> prog.Prog:
            refusal: Optional[ProgError] = None
            for helper in ("bpf_probe_read_kernel", "bpf_probe_read"):
                fds = self._config.fd, self._slots.fd
                code = assemble(offsets, size, uapi.BPF_FUNC[helper], fds, self._arch.byte_order)
                try:
                    return prog.load("peek", prog_type, code, "Dual BSD/GPL")
                except ProgError as error:
                    refusal = error
            assert refusal is not None
            raise refusal

        return load


def unpack(content: bytes, pointer_size: int) -> Record:
    """A record as it lies in the map.

    The task is what bpf_get_current_task() returned, a long: on 32-bit machines its address is extended with its sign.
    """
    *args, task = struct.unpack_from(HEADER, content)
    return Record(tuple(args), task & (1 << pointer_size * 8) - 1, content[struct.calcsize(HEADER) :])


def self_id() -> int:
    """What bpf_get_current_pid_tgid() says in this thread. Only in the first pid namespace."""
    pid, _, tid = os.readlink("/proc/thread-self").split("/")
    return int(pid) << 32 | int(tid)


def pass_state() -> None:
    """Makes this thread pass STATE, without a packet."""
    with socket.socket() as passing:
        passing.listen(1)
