"""What a kernel says about itself: architecture, version banner, build-id, and which debug information it carries."""

from __future__ import annotations

import contextlib
import re
import struct
from typing import IO, Any, Dict, Iterable, Iterator, NamedTuple, Optional, Union

from sockpid import elf_notes
from sockpid.arch import Arch
from sockpid.errors import SourceError
from sockpid_gen.dwarf import dwarf
from sockpid_gen.files.sections import IDENTITY, arch_of, content, mapped, opened

# Since Linux 6.1 there is a second string, without a build number; the linker chooses the one that has it.
_BANNER_START = b"Linux version "
_BANNER = re.compile(_BANNER_START + rb"[0-9][^\n\0]* #[0-9][^\n\0]*")

_DISTRIBUTIONS = (
    (r"\(debian-kernel@lists\.debian\.org\)", "debian"),
    (r"#[0-9~.]+-Ubuntu ", "ubuntu"),
    (r"^Linux version \S+\.fc[0-9]+\.", "fedora"),
    (r"^Linux version \S+\.el[0-9]+", "el"),
    (r"^Linux version \S+\.amzn[0-9]+\.", "amazon"),
)
"""What distributions write into the banners of their kernels. "el" is RHEL and what is rebuilt from it."""

BTF_HEADER = 24
"""Bytes of the part of a BTF header that every one has."""

_NOTES_WINDOW = 256 << 10
"""How far before BTF the kernel's notes may end, in bytes: the alignment in between is that of a page."""


class Facts(NamedTuple):
    """What was found. banner: the version banner; btf: the content of section .BTF; dwarf: there is .debug_info.

    Beside DWARF, BTF is not read before it is asked for: at its peak, reading DWARF takes all the memory.
    """

    arch: Arch
    banner: Optional[str]
    build_id: Optional[str]
    btf: Union[bytes, memoryview, None]
    dwarf: bool


def read_elf(file: IO[bytes]) -> Facts:
    """The facts of an ELF vmlinux. Raises SourceError if it is damaged, or no kernel, UnsupportedArchError."""
    from elftools.elf.constants import SH_FLAGS

    file.seek(0)
    arch = arch_of(file.read(IDENTITY))
    build_id: Optional[str] = None
    banners: Dict[str, None] = {}
    btf: Union[bytes, memoryview, None] = None
    described: Any = None
    has_dwarf = False
    with opened(file) as elf:
        if elf["e_type"] == "ET_REL":
            # Modules are such files, too: what is in them is not all of a kernel, and its numbers are not final.
            raise SourceError("no linked kernel but an object file (kernel modules are such files)")
        for section in elf.iter_sections():
            kind, flags = section["sh_type"], section["sh_flags"]
            if kind == "SHT_NOBITS":
                continue
            if section.name == ".BTF":
                btf, described = content(file, section), section
            elif section.name in dwarf.SECTIONS:
                has_dwarf = True
            elif kind == "SHT_NOTE":
                build_id = build_id or elf_notes.build_id(content(file, section), arch.byte_order)
            elif flags & SH_FLAGS.SHF_ALLOC and not flags & SH_FLAGS.SHF_EXECINSTR:
                data = content(file, section)
                banners.update(dict.fromkeys(banners_in(data, len(data))))
        if has_dwarf and btf and not described.compressed:
            with contextlib.suppress(OSError):
                btf = mapped(file, described)
    return Facts(arch, one_of(banners), build_id, btf, has_dwarf)


def read_raw(data: bytes, arch: Arch) -> Facts:
    """The facts of a kernel's memory image, which has neither sections nor symbols."""
    at, btf = _find_btf(data, arch.byte_order)
    build_id = None
    if btf is not None:
        # include/asm-generic/vmlinux.lds.h puts .notes right before .BTF. Notes elsewhere belong to vDSOs.
        start = data.rfind(
            struct.pack(mark(arch.byte_order) + "III", 4, 20, elf_notes.NT_GNU_BUILD_ID) + b"GNU\0",
            max(0, at - _NOTES_WINDOW),
            at,
        )
        if start >= 0:
            build_id = elf_notes.build_id(data[start:at], arch.byte_order)
    return Facts(arch, one_of(dict.fromkeys(banners_in(data, len(data)))), build_id, btf, False)


def release_of(banner: str) -> str:
    """The kernel release in a version banner."""
    return banner.split(" ", 3)[2]


def is_banner(text: str) -> bool:
    """Whether a text is a version banner, as /proc/version has it."""
    return _BANNER.fullmatch(text.rstrip().encode()) is not None


def distribution_of(banner: str) -> Optional[str]:
    """Who built a kernel, as far as its banner tells; None otherwise."""
    for pattern, name in _DISTRIBUTIONS:
        if re.search(pattern, banner):
            return name
    return None


def mark(byte_order: str) -> str:
    """How struct.pack() calls a byte order."""
    return "<" if byte_order == "little" else ">"


def banners_in(data: Union[bytes, bytearray], end: int) -> Iterator[str]:
    """The version banners that start before `end`."""
    end += len(_BANNER_START) - 1
    at = data.find(_BANNER_START, 0, end)
    while at >= 0:
        match = _BANNER.match(data, at)
        if match:
            yield match.group().decode("utf-8", "replace").rstrip()
        at = data.find(_BANNER_START, at + 1, end)


def one_of(banners: Iterable[str]) -> Optional[str]:
    """The banner, if there is one. Raises SourceError if there are several: nothing tells which is the kernel's."""
    found = list(banners)
    if len(found) > 1:
        raise SourceError(f"it has several version banners: {found[0]!r} and {found[1]!r}")
    return found[0] if found else None


def btf_size(data: Union[bytes, bytearray], at: int, byte_order: str) -> Optional[int]:
    """The size of the BTF whose header is at data[at:]; None if there is none."""
    if at + BTF_HEADER > len(data):
        return None
    magic, version, flags, length, *places = struct.unpack_from(mark(byte_order) + "HBBIIIII", data, at)
    if (magic, version, flags) != (0xEB9F, 1, 0) or not BTF_HEADER <= length <= 256:
        return None
    type_off, type_len, str_off, str_len = places
    return int(length + max(type_off + type_len, str_off + str_len))


def _find_btf(data: bytes, byte_order: str) -> tuple[int, Optional[bytes]]:
    """The largest BTF in `data`, and where it is. (The kernel has small ones for BPF programs of its own.)"""
    magic = struct.pack(mark(byte_order) + "HBB", 0xEB9F, 1, 0)
    best_at, best_size = -1, 0
    for match in re.finditer(re.escape(magic), data):  # in so many zeros twice as fast as bytes.find
        at = match.start()
        size = btf_size(data, at, byte_order)
        if size is not None and best_size < size <= len(data) - at:
            best_at, best_size = at, size
    return best_at, data[best_at : best_at + best_size] if best_size else None
