"""A file's bytes without a copy, where the kernel maps them: sysfs gives 4 KiB a read, of BTF that has megabytes."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO


def content(file: BinaryIO) -> bytes:
    """All bytes of a file that does not change; what bytes can do but mmap.mmap cannot, the caller must not ask for.

    BTF can be mapped since Linux kernel commit a539e2a6d51d ("btf: Allow mmap of vmlinux btf") (in v6.16).
    """
    try:
        import mmap

        size = os.fstat(file.fileno()).st_size
        mapping: Any = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ)
    except (ImportError, OSError, ValueError):  # an older kernel, or an empty file
        return file.read()
    found: bytes = mapping
    return found
