"""BPF programs: loading, and turning the verifier's answer into one that helps."""

from __future__ import annotations

import errno
import os
import struct

from sockpid import syscall, uapi
from sockpid.errors import ProgError, RelocationError, SyscallError, VerifierError
from sockpid.host import kernel
from sockpid.image.insn import EXIT, LDX_DW, MOV64, Insn

from . import memlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Optional

LOG_SIZE = 1 << 16
LOG_MAX = 1 << 24


class Prog:
    """A loaded program and its descriptor."""

    def __init__(self, name: str, prog_type: int, fd: int) -> None:
        self.name = name
        self.type = prog_type
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load(
    name: str,
    prog_type: int,
    insns: bytes,
    license: str,
    poison: Optional[Mapping[int, str]] = None,
    attach_btf_id: int = 0,
    named: bool = False,
    attach_type: int = uapi.BPF_TRACE_FENTRY,
) -> Prog:
    """Loads a program; first without a log, which costs time, and on a refusal again with one.

    poison: as Relocated.poison, to name the field when the verifier met a poisoned instruction. attach_btf_id: of the
    function that a fentry or LSM program is for; attach_type says which of the two it is.
    named: Linux kernel commit cb4d2b3f03d8 ("bpf: Add name, load_time, uid and map_ids to bpf_prog_info") (in v4.15).
    Raises VerifierError with the log, RelocationError for a missing field, SyscallError where the verifier was not
    asked (EPERM and the like).
    """
    shown = name if named else ""
    try:
        return Prog(name, prog_type, _load(shown, prog_type, insns, license, attach_btf_id, attach_type, None))
    except SyscallError as error:
        if error.errno == errno.EPERM:
            raise
        first = error
    size = LOG_SIZE
    while True:
        log = bytearray(size)
        try:
            # It may have been a passing refusal (EAGAIN): then this is the program.
            return Prog(name, prog_type, _load(shown, prog_type, insns, license, attach_btf_id, attach_type, log))
        except SyscallError as error:
            if error.errno == errno.ENOSPC and size < LOG_MAX:
                size *= 4
                continue
        break
    text = bytes(log).split(b"\0", 1)[0].decode("utf-8", "replace")
    # "invalid func 195896081" before Linux 4.10, "invalid func unknown#195896081" since, and what may come.
    said = set(text.replace("#", " ").split())
    for helper, field in (poison or {}).items():
        if str(helper) in said:
            # That is all that is ever missing: what some kernel of these lacks is behind a test for it.
            raise RelocationError(
                f"program {name} needs {field}, which this kernel does not have, say its offsets; every Linux from 4.9 "
                "on has it, and older ones are not supported",
                field,
                "",
            )
    if not text:
        raise ProgError(f"program {name}: bpf(BPF_PROG_LOAD): {first.strerror}, and no word from the verifier")
    raise VerifierError(f"program {name} was refused: {first.strerror}: {telling_line(text)}{_advice(text)}", text)


def _load(
    name: str,
    prog_type: int,
    insns: bytes,
    license_name: str,
    attach_btf_id: int,
    attach_type: int,
    log: Optional[bytearray],
) -> int:
    code = bytearray(insns)
    license_buffer = bytearray(license_name.encode() + b"\0")
    attr = struct.pack(
        "=IIQQIIQI",
        prog_type,
        len(insns) // 8,
        syscall.address(code),
        syscall.address(license_buffer),
        1 if log else 0,
        len(log) if log else 0,
        syscall.address(log) if log else 0,
        # kernels before 5.0 compare it, for this type of program
        kernel.version_code() if prog_type == uapi.BPF_PROG_TYPE_KPROBE else 0,
    )
    if name or attach_btf_id:
        attr += struct.pack("=I16s", 0, name.encode()[: uapi.BPF_OBJ_NAME_LEN - 1])
    if attach_btf_id:
        # prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size, func_info, func_info_cnt,
        # line_info_rec_size, line_info, line_info_cnt, attach_btf_id
        attr += struct.pack("=IIIIQIIQII", 0, attach_type, 0, 0, 0, 0, 0, 0, 0, attach_btf_id)
    return memlock.bpf("BPF_PROG_LOAD", uapi.BPF_PROG_LOAD, bytearray(attr))


def misses(prog: Prog) -> Optional[int]:
    """Runs that a program should have had, and was passed over for, because it or another ran on that CPU. None where
    the kernel does not count them.

    Linux kernel commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12): bytes 208 to
    215 of struct bpf_prog_info. Of programs on perf events: commit dd8657894c11 ("bpf: Count missed stats in
    trace_call_bpf") (in v6.7).
    """
    info = bytearray(216)
    attr = bytearray(struct.pack("=IIQ", prog.fd, len(info), syscall.address(info)))
    try:
        syscall.bpf("BPF_OBJ_GET_INFO_BY_FD", uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
    except SyscallError:
        return None
    (length,) = struct.unpack_from("=I", attr, 4)
    return int(struct.unpack_from("=Q", info, 208)[0]) if length >= len(info) else None


def function_of(prog_type: int, attach_type: int, btf_id: int) -> str:
    """The function that the kernel finds under a BTF id, as it says itself; "" where it does not say.

    A program that reads an argument which no function has is refused, and the verifier's log names the function:
    btf_ctx_access() of kernel/bpf/btf.c. Linux kernel commit 382072916044 ("bpf: Prepare btf_ctx_access for non raw_tp
    use case.") (in v5.5)
    """
    order = syscall.machine().byte_order
    insns = (Insn(LDX_DW, 0, 1, 8 * 11, 0), Insn(MOV64, 0, 0, 0, 0), Insn(EXIT, 0, 0, 0, 0))
    log = bytearray(4096)
    try:
        fd = _load("", prog_type, b"".join(insn.pack(order) for insn in insns), "GPL", btf_id, attach_type, log)
    except SyscallError as error:
        if error.errno == errno.EPERM:
            raise
    else:
        os.close(fd)
    _, _, after = log.partition(b"func '")
    return after.partition(b"'")[0].decode("utf-8", "replace")


def _advice(log: str) -> str:
    """What the user can do about a refusal, if anything."""
    if "requires BPF JIT" in log:
        return "; is it switched off? sysctl net.core.bpf_jit_enable=1"
    return ""


def telling_line(log: str) -> str:
    """The line of a verifier log that says why: the last one that is neither a statistic nor an instruction."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if not line.startswith(("processed ", "verification time", "stack depth", "max_states")):
            return line
    return "no reason given"
