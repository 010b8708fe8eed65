"""A file's bytes without a copy, where the kernel maps them: sysfs gives 4 KiB a read, of BTF that has megabytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import BinaryIO


def content(file: BinaryIO) -> bytes:
    """All bytes of a file that does not change; what bytes can do but mmap.mmap cannot, the caller must not ask for.

    BTF can be mapped since Linux kernel commit a539e2a6d51d ("btf: Allow mmap of vmlinux btf") (in v6.16).
    """
    try:
        import mmap

        size = os.fstat(file.fileno()).st_size
        return cast(bytes, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ))
    except (ImportError, OSError, ValueError):  # an older kernel, or an empty file
        return file.read()
