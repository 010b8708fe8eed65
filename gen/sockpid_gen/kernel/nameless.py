"""BTF of kernels that only a file name tells apart: collections of old kernels' BTF, RELEASE.btf or RELEASE.btf.tar.xz.

Neither build-id nor banner is in them. What is read here is marked so: nobody takes it for a running kernel by itself.
"""

from __future__ import annotations

import lzma
import re
import tarfile
from pathlib import Path
from typing import NamedTuple, Optional

from sockpid.arch import ARCHES, Arch
from sockpid.errors import SourceError

from . import vmlinux

BTF_MAX = 64 << 20
"""Bytes; the largest BTF of a kernel that was seen has 27 MB."""

_NAME = re.compile(r"([0-9]+\.[0-9]+.*?)\.btf(\.tar\.xz)?\Z")


class Nameless(NamedTuple):
    """One kernel's BTF. release and arch are out of the file's name."""

    release: str
    arch: Arch
    distribution: Optional[str]
    btf: bytes


def is_nameless(path: Path) -> bool:
    """Whether a file is called like one of such a collection."""
    return _NAME.match(path.name) is not None


def read(path: Path) -> Nameless:
    """The kernel of a file. Raises SourceError if it cannot be read, or if its path does not name an architecture."""
    match = _NAME.match(path.name)
    if match is None:
        raise SourceError(f"{path}: its name is not RELEASE.btf or RELEASE.btf.tar.xz")
    release = match.group(1)
    arch = ARCHES.get(release.rpartition(".")[2]) or next((ARCHES[p] for p in path.parts[::-1] if p in ARCHES), None)
    if arch is None:
        raise SourceError(f"{path}: neither its name nor a directory says for which architecture it is")
    try:
        if match.group(2) is None:
            with path.open("rb") as file:
                content = file.read(BTF_MAX + 1)
        else:
            content = _first(path)
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise SourceError(f"{path}: damaged: {error}") from None
    if len(content) > BTF_MAX:
        raise SourceError(f"{path}: no kernel's BTF has more than {BTF_MAX >> 20} MiB")
    return Nameless(release, arch, vmlinux.distribution_of(f"Linux version {release} "), content)


def _first(path: Path) -> bytes:
    with tarfile.open(path, "r|xz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(".btf") else None
            if content is not None:
                return content.read(BTF_MAX + 1)
    raise SourceError(f"{path}: no .btf in it")
