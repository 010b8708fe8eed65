"""BTF of a kernel module: it continues that of its kernel, and has the types that only the module knows.

So a layout can name types of what a distribution builds as a module, such as struct tls_context.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from sockpid.btf.btf import Btf
from sockpid.errors import SourceError
from sockpid_gen.files.decompress import KERNEL_MAX, decompress, kind_of
from sockpid_gen.files.sections import ELF_MAGIC, content, opened

_VERMAGIC = re.compile(rb"(?:\A|\0)vermagic=(\S+)")


def read(path: Path, release: str, base: Btf) -> Btf:
    """The types of a module (.ko, compressed or not; or its bare BTF, as in /sys/kernel/btf) on top of its kernel's.

    Raises SourceError if it cannot be read, has no BTF, was built for another release than `release`, or has BTF that
    does not continue the kernel's; BtfError if its BTF is damaged.
    """
    try:
        if path.stat().st_size > KERNEL_MAX:
            raise SourceError("no module is so large")
        data = path.read_bytes()
        if kind_of(data[:8]):
            data = decompress(data)
        return Btf(_btf(data, release) if data.startswith(ELF_MAGIC) else data, base)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None


def _btf(data: bytes, release: str) -> bytes:
    file = io.BytesIO(data)
    with opened(file) as elf:
        sections = {section.name: section for section in elf.iter_sections()}
        if ".modinfo" not in sections:
            raise SourceError("no kernel module: it has no section .modinfo")
        vermagic = _VERMAGIC.search(content(file, sections[".modinfo"]))
        if ".BTF.base" in sections:
            # Linux kernel: Documentation/bpf/btf.rst, ".BTF.base": ids are those of a base of its own.
            raise SourceError("its BTF has a base of its own (it was built outside the kernel's tree)")
        if ".BTF" not in sections:
            raise SourceError("the module has no BTF (its kernel was built without CONFIG_DEBUG_INFO_BTF_MODULES)")
        btf = content(file, sections[".BTF"])
    built_for = vermagic.group(1).decode("utf-8", "replace") if vermagic else "an unknown release"
    if built_for != release:
        raise SourceError(f"the module was built for {built_for}, not for {release}")
    return btf
