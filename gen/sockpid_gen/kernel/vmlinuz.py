"""The kernel inside a bootable image: vmlinux as ELF or, where only its loadable part is in it, as raw memory image."""

from __future__ import annotations

import itertools
import re
import struct
from typing import NamedTuple, Optional

from sockpid.arch import ARCHES, Arch
from sockpid.errors import SourceError
from sockpid_gen.files.decompress import MAGICS, decompress
from sockpid_gen.files.sections import ELF_MAGIC

_UIMAGE_MAGIC = b"\x27\x05\x19\x56"
_UIMAGE_ARCHES = {2: "arm", 22: "aarch64", 26: "riscv64"}
WRAPPED_MAX = 4
"""How many compressions or headers may be around a kernel; one that says it is in itself would have no end."""

_TRIES = 2000
"""Magic numbers that are looked into. Three bytes are found by chance about twice in an image of 30 MiB."""


class Kernel(NamedTuple):
    """An uncompressed kernel. arch is None for ELF files, which say so themselves."""

    data: bytes
    arch: Optional[Arch]


class Place(NamedTuple):
    """Where a kernel is in its image. size: None is all that follows. arch: of a memory image; None: compressed."""

    offset: int
    size: Optional[int]
    arch: Optional[Arch]


def unpack(image: bytes, wrapped: int = WRAPPED_MAX) -> Kernel:
    """Takes the kernel out of a vmlinuz, bzImage, Image, zImage, uImage or unified kernel image. Raises SourceError.

    wrapped: how many layers may be around it.
    """
    if wrapped < 0:
        raise SourceError(f"more than {WRAPPED_MAX} layers around a kernel")
    try:
        return _unpack(image, wrapped - 1)
    except (struct.error, IndexError):
        raise SourceError("the kernel image is truncated: it ends within its header") from None


def _unpack(image: bytes, wrapped: int) -> Kernel:
    if image.startswith(ELF_MAGIC):
        return Kernel(image, None)
    header = place(image)
    if header is not None:
        if header.arch is not None:
            return Kernel(image, header.arch)
        packed = image if header.size is None else _slice(image, header.offset, header.size)
        return unpack(decompress(packed), wrapped)
    if image[:4] == _UIMAGE_MAGIC:
        return _uimage(image, wrapped)
    linux = _pe_section(image, b".linux") if image[:2] == b"MZ" else None
    if linux is not None:  # a unified kernel image
        return unpack(linux, wrapped)
    if image[0x10008:0x1000E] == b"S390EP":  # arch/s390/boot/head.S
        return Kernel(_scan(image), ARCHES["s390x"])
    if image[0x24:0x28] == b"\x18\x28\x6f\x01":  # arch/arm/boot/compressed/head.S, little-endian
        return Kernel(_scan(image), ARCHES["arm"])
    kernel = _scan(image)
    if kernel.startswith(ELF_MAGIC):
        return Kernel(kernel, None)
    raise SourceError("no kernel image that is known here")


def place(start: bytes) -> Optional[Place]:
    """Where the kernel is in an image that starts so, if its header says that. Raises SourceError, IndexError."""
    # Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot-image-header.rst have the magic numbers.
    if start[0x38:0x3C] == b"ARM\x64":
        return Place(0, None, ARCHES["aarch64"])
    if start[0x30:0x35] == b"RISCV" and start[0x38:0x3C] == b"RSC\x05":
        return Place(0, None, ARCHES["riscv64"])
    if start[0x202:0x206] == b"HdrS":
        return _x86_payload(start)
    if start[:2] == b"MZ" and start[4:8] == b"zimg":
        # drivers/firmware/efi/libstub/zboot-header.S: offset and size of the payload
        offset, size = struct.unpack_from("<II", start, 8)
        return Place(offset, size, None)
    if any(start.startswith(magic) for magic in MAGICS):
        return Place(0, None, None)
    return None


def _x86_payload(start: bytes) -> Place:
    """The compressed vmlinux of a bzImage (Documentation/arch/x86/boot.rst, protocol 2.08 and later)."""
    (protocol,) = struct.unpack_from("<H", start, 0x206)
    if protocol < 0x208:
        raise SourceError(f"x86 boot protocol {protocol >> 8}.{protocol & 0xFF:02} does not say where its payload is")
    setup_sectors = start[0x1F1] or 4
    offset, size = struct.unpack_from("<II", start, 0x248)
    return Place((setup_sectors + 1) * 512 + offset, size, None)


def _uimage(image: bytes, wrapped: int) -> Kernel:
    """U-Boot's legacy image: a big-endian header of 64 bytes (include/image.h, struct legacy_img_hdr), and a kernel."""
    (size,) = struct.unpack_from(">I", image, 12)
    arch = _UIMAGE_ARCHES.get(image[29])
    kernel = _slice(image, 64, size)
    if any(kernel.startswith(magic) for magic in MAGICS):
        kernel = decompress(kernel)
    try:
        return unpack(kernel, wrapped)
    except SourceError:
        if arch is None:
            raise
        return Kernel(kernel, ARCHES[arch])  # a raw image without a header of its own


def _pe_section(image: bytes, name: bytes) -> Optional[bytes]:
    """A section of a PE file, which is what UEFI starts; None if it has none of that name."""
    (at,) = struct.unpack_from("<I", image, 0x3C)
    if image[at : at + 4] != b"PE\0\0":
        return None
    count, size_of_optional = struct.unpack_from("<2xH12xH", image, at + 4)
    for number in range(count):
        section = at + 24 + size_of_optional + 40 * number
        if image[section : section + 8].rstrip(b"\0") == name:
            virtual_size, _, size, offset = struct.unpack_from("<IIII", image, section + 8)
            return _slice(image, offset, min(size, virtual_size or size))
    return None


def _slice(image: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(image):
        raise SourceError(
            f"the payload ({offset}+{size}) reaches past the end of the image ({len(image)} bytes): truncated"
        )
    return image[offset : offset + size]


def _scan(image: bytes) -> bytes:
    """The first megabyte or more that can be decompressed, for images whose header does not say where it is."""
    matches = re.finditer(b"|".join(re.escape(magic) for magic in MAGICS), image)
    for match in itertools.islice(matches, _TRIES):
        try:
            data = decompress(memoryview(image)[match.start() :])
        except SourceError:  # the magic number of a compression, but only by chance
            continue
        if len(data) >= 1 << 20:
            return data
    raise SourceError("no kernel image that is known here")
