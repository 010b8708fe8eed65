"""Where the offsets for the running kernel come from: a given file, the table that travels along, or its own BTF."""

from __future__ import annotations

import functools
import os
import struct
from typing import Callable, FrozenSet, Mapping, NamedTuple, Optional, Tuple

from . import data, hooks, syscall, table, uapi
from .arch import Arch
from .btf import Btf
from .errors import BtfError, OtherKernelError, SyscallError, TableError, UnknownKernelError
from .image import Image
from .kernel import Identity
from .layout import Layout

BTF_PATH = "/sys/kernel/btf/vmlinux"


class Offsets(NamedTuple):
    """The offsets in use. origin: "table" or "btf", as events say it. source: the file, for people.

    btf_ids: gives the BTF ids of hook functions, as far as known; asked only where fentry is tried.
    """

    layout: Layout
    origin: str
    source: str
    btf_ids: Callable[[], Mapping[str, int]]


def find(image: Image, kernel: Identity, path: Optional[str], deny: FrozenSet[str] = frozenset()) -> Offsets:
    """The offsets for `kernel`. With `path`, that table file alone is asked; "live-btf" in `deny` leaves BTF out.

    Raises OtherKernelError if the file has no entry for this kernel, UnknownKernelError if nothing has, TableError,
    SchemaError and BtfError for damaged data.
    """
    if path is not None:
        return _from_file(kernel, path)
    name = f"offsets/{kernel.arch.name}/{table.series_of(kernel.release)}.json"
    nearest: Tuple[str, ...] = ()
    content = data.read(name)
    if content is not None:
        shard = table.parse_shard(content, name)
        entry = shard.find(kernel.build_id, kernel.release, kernel.banner)
        if entry is not None:
            return Offsets(shard.layout(entry), "table", name, lambda: entry.btf_ids or {})
        nearest = tuple(sorted({e.release for e in shard.entries}))
    btf_reason = "live BTF denied by option"
    if "live-btf" not in deny:
        try:
            return from_btf(image, kernel.arch)
        except SyscallError as error:
            btf_reason = str(error)
    lines = [
        f"no offsets are known for this kernel: build-id {kernel.build_id or '(none)'}, release {kernel.release}",
        f"  table: {name} has "
        + (f"only {', '.join(nearest)}" if nearest else "no entry" if content else "not been made"),
        f"  BTF: {btf_reason}",
        "  make an entry on a connected machine with `sockpid-gen add PACKAGE`, then use `--offsets FILE`",
    ]
    raise UnknownKernelError("\n".join(lines), nearest)


def _from_file(kernel: Identity, path: str) -> Offsets:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    shard = table.parse_shard(content, path)
    entry = shard.find(kernel.build_id, kernel.release, kernel.banner) if shard.arch == kernel.arch.name else None
    if entry is None:
        has = ", ".join(sorted({e.release for e in shard.entries})) or "none"
        raise OtherKernelError(
            f"{path} is for other kernels ({shard.arch}: {has}); this one is {kernel.arch.name} {kernel.release}, "
            f"build-id {kernel.build_id or '(none)'}",
            tuple(e.release for e in shard.entries),
        )
    return Offsets(shard.layout(entry), "table", path, lambda: entry.btf_ids or {})


def from_btf(image: Image, arch: Arch) -> Offsets:
    """Resolves the image's relocations from the kernel's own BTF. Raises SyscallError where there is none, BtfError."""
    try:
        with open(BTF_PATH, "rb") as file:
            content, source = file.read(), BTF_PATH
    except OSError:
        content, source = bytes(btf_by_id()), "bpf(BPF_BTF_GET_FD_BY_ID)"
    try:
        btf = Btf(content)
        layout = btf.extract(image.wanted(arch), arch.pointer_size)
        return Offsets(layout, "btf", source, functools.lru_cache(None)(lambda: btf.func_ids(hooks.functions())))
    except BtfError as error:
        raise BtfError(f"{source}: {error}") from None


def btf_by_id() -> bytearray:
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
