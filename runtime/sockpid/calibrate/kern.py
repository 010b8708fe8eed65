"""The steps of a calibration that find what marks sockets that are the kernel's own, or have a protocol above TCP."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import FrozenSet, List, NamedTuple, Optional, Set, Tuple

from sockpid import uapi
from sockpid.arch import Arch
from sockpid.offsets.calibration import ULP, Found, Sample
from sockpid.subjects import subjects, workers
from sockpid.subjects.peek import Peek
from sockpid.subjects.subjects import Connection
from sockpid.table.layout import Field, Layout, Struct

from .findings import COMMON, Findings
from .sock import SOCK, SOCK_COMMON, Sockets

KERN, BESIDE = "struct sock.sk_kern_sock", "struct sock.sk_no_check_tx"
NAMESPACE = 8192  # bytes of struct net; it has had 3200 to 5200
ULP_OPS = 256


class Named(NamedTuple):
    """The memory of a socket with an upper layer protocol, and that protocol's name."""

    memory: bytes
    name: str


def find_kern(findings: Findings, plain: Sockets, children: List[workers.Child], stack: contextlib.ExitStack) -> None:
    """Members that plain TCP sockets of a process do not use."""
    named = _subflows(findings, plain, stack)
    tls = _tls(plain, stack)
    kernels = [n.memory for n in named] + _control_sockets(findings, plain, children)
    _kern_sock(findings, plain, kernels, tls is None)
    _ulp_ops(findings, plain, named + (tls or []))


def look(arch: Arch, layout: Layout, deny: FrozenSet[str]) -> Found:
    """Where sk_kern_sock lies, as sockets show that only the kernel can have opened; the rest of the layout is known.

    Raises AttachError, ProgError, SyscallError, CalibrationError and OSError where they cannot be looked at.
    """
    findings = Findings(arch)
    for kind, row in layout.items():
        for path, field in row.fields.items() if isinstance(row, Struct) else ():
            if field is not None:
                findings.found[f"{kind}.{path}"] = field
    findings.found.pop(KERN, None)
    with contextlib.ExitStack() as stack:
        peek = stack.enter_context(Peek(deny))
        children = workers.children(stack, 2)
        plain = Sockets(findings, peek)
        plain.connect_all(stack)
        is_old = _tls(plain, stack) is None
        _kern_sock(findings, plain, _control_sockets(findings, plain, children), is_old)
    return Found(findings.found.get(KERN), findings.problems.get(KERN, ""))


def _subflows(findings: Findings, plain: Sockets, stack: contextlib.ExitStack) -> List[Named]:
    """What TCP works on below an MPTCP socket: the kernel opened it, and it has an upper layer protocol."""
    protocol = findings.found.get("struct sock.sk_protocol")
    try:
        connection = Connection(protocol=subjects.IPPROTO_MPTCP)
    except OSError:  # no MPTCP
        return []
    stack.callback(connection.close)
    connection.listener.listen(1)
    records = plain.peek.capture(connection.connect)
    found = [plain.peek.read(sk) for sk in {r.args[0] for r in records if r.args[-1] & 0xFF == uapi.TCP_SYN_SENT}]
    return [Named(m, "mptcp") for m in found if protocol and findings.value(m, protocol) == socket.IPPROTO_TCP]


def _control_sockets(findings: Findings, plain: Sockets, children: List[workers.Child]) -> List[bytes]:
    """The sockets that struct net of a fresh network namespace points to: only the kernel can have opened them.

    Linux: net/ipv4/af_inet.c, inet_ctl_sock_create().
    """
    net, family = findings.found.get(COMMON + "skc_net.net"), findings.found.get(COMMON + "skc_family")
    if net is None or family is None:
        return []
    found: List[bytes] = []
    for child in children:
        records = plain.peek.capture(child.pass_state, thread=child.id)
        if child.netns is None or not records or found:
            continue
        namespace = findings.value(records[0].memory, net)
        content = plain.peek.read(namespace, NAMESPACE)
        for pointer in {value for _, value in findings.pointers(content, range(NAMESPACE))}:
            memory = plain.peek.read(pointer)
            is_inet = findings.value(memory, family) in (socket.AF_INET, socket.AF_INET6)
            if is_inet and findings.value(memory, net) == namespace:
                found.append(memory)
    return found


def _kern_sock(findings: Findings, plain: Sockets, kernels: List[bytes], is_old: bool) -> None:
    """sk_kern_sock is the one bit that is set in sockets that the kernel opened, in the byte of sk_no_check_tx.

    The two are neighbours in include/net/sock.h, and anybody may set the latter (SO_NO_CHECK). is_old: the kernel has
    no upper layer protocols (v4.13), so if no bit there is set in the kernel's sockets alone, it is from before this
    one came. Linux kernel commit cdfbabfb2f0c ("net: Work around lockdep limitation in sockets that use sockets") (in
    v4.11)
    """
    samples = []
    for entry in plain.sockets:
        for value in (1, 0, 1, 0):
            entry.client.setsockopt(socket.SOL_SOCKET, subjects.SO_NO_CHECK, value)
            samples.append(Sample(plain.peek.read(entry.sk), {BESIDE: {value}}))
    beside = findings.search_bits(samples, BESIDE, 1, SOCK, 1)
    if beside is None:
        findings.problems[KERN] = f"{BESIDE}, in the same byte: {findings.problems.pop(BESIDE)}"
        return
    del findings.found[BESIDE]
    samples = [Sample(s.memory, {KERN: {0}}) for s in plain.sockets] + [Sample(m, {KERN: {1}}) for m in kernels]
    found = findings.search_bits(samples, KERN, 1, range(beside.offset, beside.offset + 1), 1)
    if found is None and "nowhere" in findings.problems[KERN] and is_old:
        findings.absent.add(KERN)
        del findings.problems[KERN]


def _tls(plain: Sockets, stack: contextlib.ExitStack) -> Optional[List[Named]]:
    """A socket with kernel TLS, where there is that. None where TCP knows no upper layer protocols."""
    connection = Connection()
    stack.callback(connection.close)
    sk = plain.connect(connection)
    try:
        connection.client.setsockopt(socket.IPPROTO_TCP, subjects.TCP_ULP, b"tls\0")  # no shorter than a number
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.EOPNOTSUPP):
            raise
        return []
    return [Named(plain.peek.read(sk), "tls")]


def _is_of_next(findings: Findings, memory: bytes, place: Tuple[int, int], places: Set[Tuple[int, int]]) -> bool:
    """Is a place in the next object of the slab, which is a socket of the same kind, what another is in this one?"""
    net, family = findings.found.get(COMMON + "skc_net.net"), findings.found.get(COMMON + "skc_family")
    if net is None or family is None:
        return False
    for offset, at in places:
        following = memory[place[0] - offset :]
        if place[0] - offset < SOCK_COMMON.stop or place[1] != at:
            continue
        is_inet = findings.value(following, family) in (socket.AF_INET, socket.AF_INET6)
        if is_inet and findings.value(following, net) == findings.value(memory, net):
            return True
    return False


def _ulp_ops(findings: Findings, plain: Sockets, named: List[Named]) -> None:
    """icsk_ulp_ops is NULL in plain TCP sockets; in others it points to what has the protocol's name in it."""
    pairs: Optional[Set[Tuple[int, int]]] = None
    size = findings.arch.pointer_size
    for memory, name in named:
        mine = set()
        for offset, value in findings.pointers(memory, range(SOCK_COMMON.stop, len(memory))):
            if any(findings.number(s.memory[offset : offset + size]) for s in plain.sockets):
                continue
            at = plain.peek.read(value, ULP_OPS).find(name.encode().ljust(16, b"\0"))
            if at >= 0:
                mine.add((offset, at))
        mine = {place for place in mine if not _is_of_next(findings, memory, place, mine)}
        pairs = mine if pairs is None else pairs & mine
    if pairs is None:
        findings.refuse(ULP, "neither an MPTCP nor a TLS socket can be made here (`modprobe tls`)")
    elif len(pairs) != 1:
        findings.refuse(ULP, f"{len(pairs)} places fit all {len(named)} sockets: {sorted(pairs)[:8]}")
    else:
        ops, at = pairs.pop()
        findings.found[ULP[0]], findings.found[ULP[1]] = findings.pointer_field(ops), Field(at * 8, 128)
