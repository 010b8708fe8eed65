"""What counts against RLIMIT_MEMLOCK before Linux 5.11 is made all the same, or its refusal says so; and nothing else
does."""

from __future__ import annotations

import errno
import os
import resource
import struct

import pytest

from sockpid import syscall, uapi
from sockpid.bpf import prog
from sockpid.bpf.features import Features
from sockpid.bpf.map import Map
from sockpid.errors import SyscallError
from sockpid.host import kernel
from sockpid.image import image
from sockpid.image.insn import EXIT, MOV64, Insn

PAGE = 4096
INSNS = b"".join(insn.pack("little") for insn in (Insn(MOV64, 0, 0, 0, 0), Insn(EXIT, 0, 0, 0, 0)))


class Host:
    """A limit, and a kernel that counts against it or not. fixed: it may not be raised. used: bytes that count already.

    refused: types of programs that something else forbids.
    """

    def __init__(self, limit: int, *, counts: bool = True, fixed: bool = False, refused: tuple[int, ...] = ()) -> None:
        self.limits = limit, limit
        self.counts, self.fixed, self.refused = counts, fixed, refused
        self.used = 0

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_MEMLOCK
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_MEMLOCK
        if self.fixed and limits[1] != self.limits[1]:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits

    def bpf(self, name: str, cmd: int, attr: bytearray) -> int:
        if cmd == uapi.BPF_PROG_LOAD and struct.unpack_from("=I", attr)[0] in self.refused:
            raise SyscallError(f"bpf({name})", errno.EPERM)
        if cmd == uapi.BPF_OBJ_GET_INFO_BY_FD or cmd not in (uapi.BPF_MAP_CREATE, uapi.BPF_PROG_LOAD):
            raise SyscallError(f"bpf({name})", errno.EINVAL)
        size = PAGE
        if cmd == uapi.BPF_MAP_CREATE:
            _, key_size, value_size, entries = struct.unpack_from("=IIII", attr)
            size = -(-(key_size + value_size) * entries // PAGE) * PAGE
        if self.counts and self.limits[0] != resource.RLIM_INFINITY and self.used + size > self.limits[0]:
            raise SyscallError(f"bpf({name})", errno.EPERM)
        self.used += size
        return os.open(os.devnull, os.O_RDONLY)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Host:
    made: Host = request.param
    monkeypatch.setattr(syscall, "bpf", made.bpf)
    monkeypatch.setattr(resource, "getrlimit", made.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", made.setrlimit)
    monkeypatch.setattr(kernel, "missing_capability", lambda _attempted: None)
    return made


def make(entries: int) -> None:
    Map.create(image.Map("map", "BPF_MAP_TYPE_ARRAY", 4, 60, entries)).close()


def load(prog_type: int = uapi.BPF_PROG_TYPE_KPROBE) -> None:
    prog.load("prog", prog_type, INSNS, "GPL").close()


@pytest.mark.parametrize("host", [Host(2 * PAGE)], indirect=True, ids=["counted"])
def test_the_limit_is_raised_for_whatever_reaches_it_first(host: Host) -> None:
    """With small maps that is a program."""
    make(64)
    load()
    assert host.limits == (2 * PAGE, 2 * PAGE)
    load()
    assert host.limits == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    make(1 << 20)


@pytest.mark.parametrize("host", [Host(PAGE, fixed=True)], indirect=True, ids=["fixed"])
def test_a_limit_that_may_not_be_raised_is_named(host: Host) -> None:
    """And not taken for something that the kernel lacks."""
    load()
    with pytest.raises(SyscallError, match="RLIMIT_MEMLOCK"):
        load()
    with pytest.raises(SyscallError, match="RLIMIT_MEMLOCK"):
        make(1)
    for name in ("probe_read_kernel", "lru_hash"):
        with pytest.raises(SyscallError, match="RLIMIT_MEMLOCK"):
            Features().has(name)
    assert host.limits == (PAGE, PAGE)


@pytest.mark.parametrize(
    "host",
    [Host(PAGE, counts=False, fixed=fixed, refused=(uapi.BPF_PROG_TYPE_TRACEPOINT,)) for fixed in (True, False)],
    indirect=True,
    ids=["fixed", "free"],
)
def test_where_nothing_counts_a_refusal_is_of_that_type_of_program(host: Host) -> None:
    with pytest.raises(SyscallError) as refused:
        load(uapi.BPF_PROG_TYPE_TRACEPOINT)
    assert "RLIMIT_MEMLOCK" not in str(refused.value)
    assert not Features().has("probe_read_kernel")
    assert "Operation not permitted" in (Features().missing("probe_read_kernel") or "")
    load()
    make(1 << 20)
