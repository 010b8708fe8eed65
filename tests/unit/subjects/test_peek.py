"""The look into kernel memory, on a kernel that takes nothing of what came after Linux 4.9."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest

from sockpid import syscall, uapi
from sockpid.arch import ARCHES
from sockpid.bpf import prog
from sockpid.bpf.link import MECHANISMS, Link
from sockpid.errors import SyscallError
from sockpid.host import kernel
from sockpid.image import image
from sockpid.subjects import peek
from tests.bpf.verifier import NEWEST, Refused, verify

MAP_ATTR, PROG_ATTR = 20, 44
"""Bytes that BPF_MAP_CREATE and BPF_PROG_LOAD had in Linux 4.9. What is behind them must be zero."""
TYPES = {number: name for name, number in vars(uapi).items() if name.startswith("BPF_MAP_TYPE_")}


class Kernel:
    """bpf(2) of Linux 4.9: maps, and programs that its verifier takes."""

    def __init__(self) -> None:
        self.maps: dict[int, image.Map] = {}
        self.refused: list[str] = []
        self.loaded = 0

    def __call__(self, name: str, cmd: int, attr: bytearray) -> int:
        known = {uapi.BPF_MAP_CREATE: MAP_ATTR, uapi.BPF_PROG_LOAD: PROG_ATTR}[cmd]
        if any(attr[known:]):
            raise SyscallError(f"bpf({name})", errno.EINVAL)
        fd = os.open(os.devnull, os.O_RDONLY)
        if cmd == uapi.BPF_MAP_CREATE:
            kind, *sizes = struct.unpack_from("=IIII", attr)
            self.maps[fd] = image.Map(str(fd), TYPES[kind], *sizes)
            return fd
        _, count, insns, _, _, size, log = struct.unpack_from("=IIQQIIQ", attr)
        try:
            verify(ctypes.string_at(insns, count * 8), "little", self.maps)
        except Refused as refusal:
            os.close(fd)
            self.refused.append(str(refusal))
            ctypes.memmove(log, str(refusal).encode(), min(size, len(str(refusal))))
            raise SyscallError(f"bpf({name})", errno.EINVAL) from None
        self.loaded += 1
        return fd


@pytest.mark.parametrize("mechanism", ["kprobe-pmu", "kprobe-tracefs"])
def test_a_kernel_of_4_9(mechanism: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Kernel()

    def attach(target: str, load: object) -> Link:
        loaded = load()  # type: ignore[operator]
        assert isinstance(loaded, prog.Prog)
        return Link(mechanism, target, loaded, os.open(os.devnull, os.O_RDONLY))

    def absent(target: str, _load: object) -> Link:
        raise SyscallError("attach", errno.ENOENT, target)

    for name, how in MECHANISMS.items():
        monkeypatch.setitem(MECHANISMS, name, how._replace(attach=attach if name == mechanism else absent))
    monkeypatch.setattr(syscall, "bpf", answers)
    monkeypatch.setattr(syscall, "machine", lambda: ARCHES["x86_64"])
    monkeypatch.setattr(kernel, "version_code", lambda: 4 << 16 | 9 << 8)
    with peek.Peek() as looking:
        for place in (peek.RETRANSMIT, peek.RAW):
            looking.attach(place)
    assert answers.loaded == 3
    assert uapi.BPF_FUNC["bpf_probe_read_kernel"] > NEWEST
    assert {said.partition(": ")[2] for said in answers.refused} == {
        f"invalid func {uapi.BPF_FUNC['bpf_probe_read_kernel']}"
    }
