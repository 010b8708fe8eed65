"""The kernel image inside a Debian package, in the form that boots fastest in emulation."""

from __future__ import annotations

import lzma
import re
import struct
import subprocess
import zlib
from pathlib import Path

from . import cache
from .packages import PackageError
from .unpack import members

# The first bytes of a compressed payload (scripts/extract-vmlinux knows the same), and who unpacks it.
_TOOLS = {b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"), b"\x02\x21\x4c\x18": ("lz4", "-dcq")}
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ"


class ImageError(Exception):
    """A package without a kernel image, or an image whose payload cannot be unpacked."""


def extract(deb: Path, release: str) -> Path:
    """The kernel image of `deb`, unpacked, cached under the package's name."""
    directory = cache.directory("image")
    path = directory / deb.stem
    with cache.locked(directory):
        if not path.exists():
            cache.write(path, unpack(_vmlinuz(deb, release)))
    return path


def unpack(image: bytes) -> bytes:
    """What QEMU boots with least unpacking in the guest: vmlinux of a bzImage, Image of an arm64 or riscv64 vmlinuz.

    A zImage of 32-bit ARM and a bzImage of s390x unpack themselves: what is in them has no header to be booted by.

    QEMU enters an x86 vmlinux through its PVH note (CONFIG_PVH, Documentation/arch/x86/boot.rst does not apply). That
    spares the emulated decompressor, two seconds, and with it KASLR.
    """
    if image[0x202:0x206] == b"HdrS":  # Documentation/arch/x86/boot.rst
        start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
        length = struct.unpack_from("<I", image, 0x24C)[0]
        return _decompress(image[start : start + length])
    if image[4:8] == b"zimg":  # drivers/firmware/efi/libstub/zboot-header.S
        start, length = struct.unpack_from("<II", image, 8)
        return _decompress(image[start : start + length])
    return _decompress(image) if image[:2] == _GZIP else image


def _decompress(payload: bytes) -> bytes:
    # x86 appends the unpacked size in four bytes, which only the tolerant formats may see.
    if payload[:2] == _GZIP:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(payload)
    if payload[:5] == _XZ:
        return lzma.LZMADecompressor().decompress(payload)
    tool = _TOOLS.get(payload[:4])
    if tool is None:
        raise ImageError(f"kernel payload in an unknown format ({payload[:6].hex()})")
    try:
        done = subprocess.run(tool, input=payload[:-4], capture_output=True, check=False)
    except FileNotFoundError:
        raise ImageError(f"{tool[0]} is not installed, and the kernel's payload needs it") from None
    if done.returncode:
        raise ImageError(f"{' '.join(tool)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _vmlinuz(deb: Path, release: str) -> bytes:
    # ppc64el installs vmlinux. linux-binary-RELEASE (Debian 6.19 and later) installs below usr/lib/modules.
    names = rf"(boot/vmlinu[xz]-{re.escape(release)}|usr/lib/modules/{re.escape(release)}/vmlinu[xz])"
    try:
        for _, entry in members(deb, names):
            return entry.content
    except PackageError:
        pass
    raise ImageError(f"{deb.name} has no kernel image for {release}")
