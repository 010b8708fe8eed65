"""The running kernel's own BTF."""

from __future__ import annotations

import os
import struct

from sockpid import syscall, uapi
from sockpid.errors import BtfError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

    from sockpid.btf.btf import Btf

PATH = "/sys/kernel/btf/vmlinux"


def demand() -> None:
    """Raises SyscallError where there is none."""
    if not os.path.exists(PATH):
        by_id()


def read() -> Tuple[Btf, str]:
    """The running kernel's own BTF, and where it was read. Raises SyscallError where there is none, BtfError."""
    from sockpid.btf.btf import Btf
    from sockpid.host.mapped import content as bytes_of

    try:
        with open(PATH, "rb") as file:
            content, source = bytes_of(file), PATH
    except OSError:
        content, source = bytes(by_id()), "bpf(BPF_BTF_GET_FD_BY_ID)"
    try:
        return Btf(content), source
    except BtfError as error:
        raise BtfError(f"{source}: {error}") from None


def by_id() -> bytearray:
    """vmlinux's BTF by way of bpf(2), for hosts that mask /sys: the object with the lowest id, loaded first.

    Linux kernel commit 5329722057d4 ("bpf: Assign ID to vmlinux BTF and return extra info for BTF in GET_OBJ_INFO")
    (in v5.11)
    """
    attr = bytearray(struct.pack("=III", 0, 0, 0))
    syscall.bpf("BPF_BTF_GET_NEXT_ID", uapi.BPF_BTF_GET_NEXT_ID, attr)
    (btf_id,) = struct.unpack_from("=I", attr, 4)
    fd = syscall.bpf("BPF_BTF_GET_FD_BY_ID", uapi.BPF_BTF_GET_FD_BY_ID, bytearray(struct.pack("=III", btf_id, 0, 0)))
    try:
        # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf
        name = bytearray(16)
        content = bytearray()
        for _ in range(2):  # first for the size, then for the bytes
            info = bytearray(
                struct.pack("=QIIQII", syscall.address(content), len(content), 0, syscall.address(name), len(name), 0)
            )
            attr = bytearray(struct.pack("=IIQ", fd, len(info), syscall.address(info)))
            syscall.bpf("BPF_OBJ_GET_INFO_BY_FD", uapi.BPF_OBJ_GET_INFO_BY_FD, attr)
            _, size, _, _, _, kernel_btf = struct.unpack("=QIIQII", info)
            if not kernel_btf or not name.startswith(b"vmlinux\0"):
                raise SyscallError("bpf(BPF_BTF_GET_NEXT_ID)", 2, "the kernel has no BTF of its own")
            if not content:
                content = bytearray(size)
        return content
    finally:
        os.close(fd)
