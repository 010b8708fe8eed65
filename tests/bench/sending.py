"""The send hook per call, by the kernel's own count (bpf_stats), beside an empty program at the same place."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable

from sockpid import syscall, uapi
from sockpid.bpf import prog
from sockpid.bpf.link import MECHANISMS
from sockpid.image import insn
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer

# byte offsets in struct bpf_prog_info (include/uapi/linux/bpf.h)
RUN_TIME_NS, RUN_CNT, INFO_SIZE = 192, 200, 208


def measure(calls: int) -> dict[str, dict[str, float]]:
    """ns per call of our program and of an empty one, for several ways of sending."""
    with Tracer.open(Options()) as tracer:
        attached = next(a for a in tracer.collection.hooks if a.hook.name == "send")
        if attached.link is None:
            return {}
        how = MECHANISMS[attached.link.mechanism]
        order = tracer.kernel.arch.byte_order
        nothing = insn.Insn(0xB7, 0, 0, 0, 0).pack(order) + insn.Insn(0x95, 0, 0, 0, 0).pack(order)
        empty = prog.load("empty", how.prog_type, nothing, "GPL")
        link = how.attach(attached.link.target, lambda: empty)
        stats = syscall.bpf("BPF_ENABLE_STATS", uapi.BPF_ENABLE_STATS, bytearray(struct.pack("=I", 0)))
        try:
            ours = attached.link.prog
            return {
                name: _compare(ours.fd, empty.fd, job)
                for name, job in (
                    ("known owner, 1 socket", lambda: send(calls, 1, 1)),
                    ("known owner, 16 sockets", lambda: send(calls, 16, 1)),
                    ("two threads in turn", lambda: send(calls // 4, 1, 2)),
                )
            }
        finally:
            os.close(stats)
            link.close()
            empty.close()


def _compare(ours: int, empty: int, job: Callable[[], None]) -> dict[str, float]:
    before = [run(fd) for fd in (ours, empty)]
    job()
    after = [run(fd) for fd in (ours, empty)]
    per_call = [(a[0] - b[0]) / max(1, a[1] - b[1]) for a, b in zip(after, before, strict=True)]
    return {"ns": per_call[0], "empty_ns": per_call[1], "calls": float(after[0][1] - before[0][1])}


def run(fd: int) -> tuple[int, int]:
    """run_time_ns and run_cnt of a program."""
    info = bytearray(INFO_SIZE)
    attr = struct.pack("=IIQ", fd, len(info), syscall.address(info))
    syscall.bpf("BPF_OBJ_GET_INFO_BY_FD", uapi.BPF_OBJ_GET_INFO_BY_FD, bytearray(attr))
    return struct.unpack_from("=Q", info, RUN_TIME_NS)[0], struct.unpack_from("=Q", info, RUN_CNT)[0]


def send(calls: int, sockets: int, threads: int) -> None:
    """`calls` writes of 64 bytes, round robin over sockets and threads; somebody reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        senders = [socket.create_connection(listener.getsockname()) for _ in range(sockets)]
        readers = [listener.accept()[0] for _ in range(sockets)]
    drains = [threading.Thread(target=_drain, args=(reader,)) for reader in readers]
    turns = [threading.Event() for _ in range(threads)]
    turns[0].set()

    def work(index: int) -> None:
        for n in range(index, calls, threads):
            if threads > 1:
                turns[index].wait()
                turns[index].clear()
            senders[n % sockets].sendall(b"x" * 64)
            if threads > 1:
                turns[(index + 1) % threads].set()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in drains + workers:
        thread.start()
    for thread in workers:
        thread.join()
    for sender in senders:
        sender.close()
    for thread in drains:
        thread.join()


def _drain(reader: socket.socket) -> None:
    while reader.recv(1 << 16):
        pass
    reader.close()
