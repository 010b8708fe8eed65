"""What a refused program's error says, from what verifiers of any age write."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest

from sockpid import syscall, uapi
from sockpid.bpf import prog
from sockpid.errors import ProgError, RelocationError, SyscallError, VerifierError
from sockpid.host import kernel
from sockpid.image.insn import EXIT, MOV64, Insn
from sockpid.image.relocate import POISON

INSNS = b"".join(insn.pack("little") for insn in (Insn(MOV64, 0, 0, 0, 0), Insn(EXIT, 0, 0, 0, 0)))
NAMES = {POISON + 1: "struct sock.sk_kern_sock", POISON + 12: "struct sock.sk_type"}


def refusing(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that refuses every program, with these words."""

    def bpf(name: str, cmd: int, attr: bytearray) -> int:
        assert cmd == uapi.BPF_PROG_LOAD
        size, address = struct.unpack_from("=IQ", attr, 28)
        ctypes.memmove(address, log.encode()[:size], min(len(log), size))
        raise SyscallError(f"bpf({name})", errno.EINVAL)

    monkeypatch.setattr(syscall, "bpf", bpf)


@pytest.mark.parametrize(
    "log",
    [
        f"118: (85) call {POISON + 12}\ninvalid func {POISON + 12}\n",  # Linux 4.9
        f"118: (85) call unknown#{POISON + 12}\ninvalid func unknown#{POISON + 12}\n",
        f"118: (85) call {POISON + 12}\nunknown func {POISON + 12}\nprocessed 119 insns\n",
        f"; why\n118: (85) call unknown#{POISON + 12}\nprogram of this type cannot use helper unknown#{POISON + 12}\n",
    ],
)
def test_a_field_that_is_not_there_is_named_in_whatever_words_it_is_refused(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(log, monkeypatch)
    with pytest.raises(RelocationError, match=r"needs struct sock\.sk_type, which .* from 4\.9 on") as refused:
        prog.load("tcp_use", uapi.BPF_PROG_TYPE_KPROBE, INSNS, "GPL", NAMES)
    assert refused.value.type_name == "struct sock.sk_type"


@pytest.mark.parametrize("log", [f"R1=inv{POISON + 12}0 !read_ok\n", f"0: (b7) r0 = 1{POISON + 12}\nR0 !read_ok\n"])
def test_a_number_that_is_part_of_another_names_nothing(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(log, monkeypatch)
    with pytest.raises(VerifierError, match="read_ok"):
        prog.load("tcp_use", uapi.BPF_PROG_TYPE_KPROBE, INSNS, "GPL", NAMES)


def test_a_verifier_that_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing("", monkeypatch)
    with pytest.raises(ProgError, match="no word from the verifier"):
        prog.load("tcp_use", uapi.BPF_PROG_TYPE_KPROBE, INSNS, "GPL", NAMES)


def test_a_kernel_that_has_no_names_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 4.15 refuses a program with what it does not know."""
    sizes: list[int] = []

    def bpf(_name: str, _cmd: int, attr: bytearray) -> int:
        sizes.append(len(attr))
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(syscall, "bpf", bpf)
    monkeypatch.setattr(kernel, "version_code", lambda: 4 << 16 | 9 << 8)
    prog.load("tcp_use", uapi.BPF_PROG_TYPE_KPROBE, INSNS, "GPL", NAMES).close()
    assert sizes == [44], "up to kern_version"
