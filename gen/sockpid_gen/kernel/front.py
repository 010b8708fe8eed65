"""What a kernel says about itself, from its front part: what lies behind its BTF, up to half of it, is not unpacked.

That the BTF is the kernel's own, and not of a BPF program in it, follows from its place: the linker script
(include/asm-generic/vmlinux.lds.h, RO_DATA) puts .notes, where the build-id is, right before .BTF, with nothing but
padding in between. Where it is not so, or the image does not say where its kernel is, the kernel has to be read whole.
"""

from __future__ import annotations

import io
import itertools
import struct
from typing import IO, BinaryIO, Dict, Iterator, NamedTuple, Optional, Union, cast

from sockpid import elf_notes
from sockpid.arch import Arch
from sockpid.btf.btf import Btf
from sockpid.errors import BtfError, SourceError, UnsupportedArchError
from sockpid_gen.files.decompress import KERNEL_MAX, Reader
from sockpid_gen.files.sections import ELF_MAGIC, arch_of
from sockpid_gen.files.stream import Window

from . import vmlinux, vmlinuz

_STEP = 1 << 16
"""Bytes that are looked at together: so many that the processor's cache holds them."""

_BUILD_ID = (4, 20, elf_notes.NT_GNU_BUILD_ID)
"""The header of a note with a build-id (man 5 elf, Nhdr): the sizes of its name, "GNU", and of a SHA-1; its type."""

_NOTE_MAX = 1 << 10
_NOTES_MAX = 8 << 10
_PADDING_MAX = 64 << 10
"""Bytes between notes and BTF: up to the start of a page."""

_REACH = _NOTES_MAX + 2 * _NOTE_MAX + _PADDING_MAX + vmlinux.BTF_HEADER
"""Bytes after the start of a note that decide whether it is the one before BTF. Banners are shorter."""


class _Found(NamedTuple):
    """Where they are: a note with a build-id, the BTF behind it; and the BTF's size."""

    note: int
    btf: int
    size: int


def buffered(stream: Union[IO[bytes], io.RawIOBase]) -> io.BufferedReader:
    """A stream, as read() takes it."""
    return io.BufferedReader(cast(io.RawIOBase, stream), _STEP)


def read(image: io.BufferedReader) -> Optional[vmlinux.Facts]:
    """The facts of the kernel in a bootable image, which starts where `image` is; None if the front does not tell.

    What is None may be damaged, too.
    """
    try:
        return _read(image, vmlinuz.WRAPPED_MAX)
    except (SourceError, BtfError, UnsupportedArchError, struct.error, IndexError):
        return None


def _read(image: io.BufferedReader, wrapped: int) -> Optional[vmlinux.Facts]:
    start = image.peek(_STEP)
    if start.startswith(ELF_MAGIC):
        return _scan(image, arch_of(start))
    place = vmlinuz.place(start)
    if place is None:
        return None
    if place.arch is not None:
        return _scan(image, place.arch)
    if not wrapped or place.offset > len(start):
        return None
    image.read(place.offset)
    return _read(buffered(Reader(cast(BinaryIO, Window(image, place.size)))), wrapped - 1)


def _scan(kernel: IO[bytes], arch: Arch) -> Optional[vmlinux.Facts]:
    pieces = itertools.islice(iter(lambda: kernel.read(_STEP), b""), KERNEL_MAX // _STEP)
    window = bytearray()
    """What was read last: of what comes before, the banner is all that is needed."""
    banners: Dict[str, None] = {}
    for piece in pieces:
        window += piece
        until = len(window) - _REACH
        if until <= 0:
            continue
        banners.update(dict.fromkeys(vmlinux.banners_in(window, until)))
        for found in _candidates(window, until, arch.byte_order):
            for more in itertools.islice(pieces, max(0, -((len(window) - found.btf - found.size) // _STEP))):
                window += more
            btf = bytes(window[found.btf : found.btf + found.size])
            Btf(btf)  # checks header and sections, and that all of it is there
            build_id = elf_notes.build_id(bytes(window[found.note : found.btf]), arch.byte_order)
            return vmlinux.Facts(arch, next(iter(banners)), build_id, btf, False) if len(banners) == 1 else None
        del window[:until]
    return None


def _candidates(window: bytearray, end: int, byte_order: str) -> Iterator[_Found]:
    """Build-ids whose notes start before `end`, with BTF behind their notes."""
    unpack = struct.Struct(vmlinux.mark(byte_order) + "III").unpack_from
    # Without the NUL at its end, which is frequent elsewhere: so the search goes in larger steps.
    start_of_note = struct.pack(vmlinux.mark(byte_order) + "III", *_BUILD_ID) + b"GNU"
    end += len(start_of_note) - 1
    note = window.find(start_of_note, 0, end)
    while note >= 0:
        here, (namesz, descsz, _) = note, _BUILD_ID
        while 0 < namesz <= 16 and descsz <= _NOTE_MAX and here < note + _NOTES_MAX:
            here += 12 + (namesz + 3 & ~3) + (descsz + 3 & ~3)
            namesz, descsz, _ = unpack(window, here)
        padded = window[here : here + _PADDING_MAX]
        btf = here + len(padded) - len(padded.lstrip(b"\0"))
        size = vmlinux.btf_size(window, btf, byte_order)
        if size is not None:
            yield _Found(note, btf, size)
        note = window.find(start_of_note, note + 1, end)
