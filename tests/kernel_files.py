"""Makes kernels to read: small ELF files, bootable images and Debian packages around a given BTF, for tests."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tarfile
from typing import Callable, Dict, Mapping, Optional

from tests.btf_builder import BtfBuilder

BANNER = "Linux version 6.1.0-1-test (builder@example.invalid) (gcc 12) #1 SMP 2024"
BUILD_ID = "0123456789abcdef0123456789abcdef01234567"
BANNERS = b"\0Linux version 6.1.0-1-test (no build number)\0" + BANNER.encode() + b"\n\0"
"""As in .rodata of Linux 6.1 and later: of the two, the one with the build number is right."""

ALWAYS = frozenset(
    (
        "inet_connection_sock", "inet_sock", "net", "pt_regs", "request_sock", "sk_buff", "sock", "socket",
        "socket_alloc", "task_struct", "tcp_skb_cb", "tcp_sock",
    )
)  # fmt: skip
"""Structs that every kernel has."""

C_OTHERS = (
    "struct pt_regs { unsigned long regs[8], gprs[8], gpr[8], uregs[8], di, si, dx, cx, a0, a1, a2, a3; } pt_regs;\n"
)
C_OTHERS += "".join(f"struct {name} {{}} {name};\n" for name in sorted(ALWAYS - {"sock", "pt_regs"}))
"""All of them but struct sock, in C."""

X86_64 = 62
S390X = 22


def btf(byte_order: str = "little", at: int = 0) -> bytes:
    """BTF of struct sock { unsigned short sk_protocol; unsigned char state : 5; }, in four bytes, and of others().

    at: the byte, 0 or 1, that sk_protocol begins at.
    """
    b = BtfBuilder(byte_order)
    u16, u8 = b.integer("unsigned short", 2), b.integer("unsigned char", 1)
    b.bitfield_struct("sock", 4, ("sk_protocol", u16, at * 8, 0), ("state", u8, at * 8 + 16, 5))
    b.record(12, "tcp_connect", b.record(13, "", 0))
    others(b)
    return b.build()


def others(b: BtfBuilder) -> None:
    """All structs that every kernel has, but for struct sock: registers of each architecture, and empty ones."""
    for name in sorted(ALWAYS - {"sock", "pt_regs"}):
        b.struct(name, 0)
    u64 = b.integer("u64", 8)
    arrays = [(name, b.array(u64, 8), 512 * n) for n, name in enumerate(("regs", "gprs", "gpr", "uregs"))]
    registers = [(name, u64, 2048 + 64 * n) for n, name in enumerate(("di", "si", "dx", "cx", "a0", "a1", "a2", "a3"))]
    b.struct("pt_regs", 320, *arrays, *registers)


def build_id_note(byte_order: str = "little", build_id: str = BUILD_ID) -> bytes:
    desc = bytes.fromhex(build_id)
    return struct.pack("<III" if byte_order == "little" else ">III", 4, len(desc), 3) + b"GNU\0" + desc


def elf(sections: Optional[Mapping[str, bytes]] = None, byte_order: str = "little", machine: int = X86_64) -> bytes:
    """A 64-bit ELF file. Without `sections`: those of a kernel with BTF and build-id."""
    if sections is None:
        sections = {".rodata": BANNERS, ".notes": build_id_note(byte_order), ".BTF": btf(byte_order)}
    mark = "<" if byte_order == "little" else ">"
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    body, headers = b"", bytes(64)
    for name, content in {**sections, ".shstrtab": names}.items():
        kind = {".notes": 7, ".shstrtab": 3}.get(name, 1)
        name_at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack(mark + "IIQQQQIIQQ", name_at, kind, 2, 0, 64 + len(body), len(content), 0, 0, 4, 0)
        body += content
    ident = b"\x7fELF\x02" + (b"\x01" if byte_order == "little" else b"\x02") + b"\x01" + bytes(9)
    count = len(sections) + 2
    header = struct.pack(mark + "HHIQQQIHHHHHH", 2, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, count, count - 1)
    return ident + header + body + headers


def bzimage(payload: bytes) -> bytes:
    """An x86 bzImage with one setup sector around a compressed vmlinux."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<II", image, 0x248, 0x40, len(payload))
    return bytes(image) + bytes(0x40) + payload + b"trailing"


def raw(byte_order: str = "little") -> bytes:
    """A memory image: a vDSO's note, banners, then the kernel's notes right before BTF, then a small other BTF."""
    other = BtfBuilder(byte_order).build()
    vdso = build_id_note(byte_order, "ff" * 20)
    return b"".join((vdso, bytes(300_000), BANNERS, build_id_note(byte_order), bytes(4096), btf(byte_order), other))


def arm64_image() -> bytes:
    data = bytearray(0x40) + raw()
    data[0x38:0x3C] = b"ARM\x64"
    return bytes(data)


def zboot(payload: bytes) -> bytes:
    """An EFI zboot image."""
    return b"MZ\0\0zimg" + struct.pack("<II", 64, len(payload)) + bytes(48) + payload


def ar(members: Mapping[str, bytes]) -> bytes:
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    return data


def tar(files: Mapping[str, Optional[bytes]]) -> bytes:
    """A tar archive of these files (None: a symbolic link)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return data.getvalue()


def xz_blocks(data: bytes, size: int = 4096) -> bytes:
    """An xz stream with a block for each `size` bytes, as dpkg makes them."""
    return subprocess.run(["xz", "-1", f"--block-size={size}"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS: Dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "": bytes,
}


def deb(files: Mapping[str, Optional[bytes]], compression: str = "xz") -> bytes:
    """A Debian package of these files (None: a symbolic link)."""
    name = f"data.tar.{compression}".rstrip(".")
    return ar(
        {"debian-binary": b"2.0\n", "control.tar.xz": b"x", name: PACKERS[compression](tar(files))},
    )


def cpio(files: Mapping[str, Optional[bytes]]) -> bytes:
    """A "newc" cpio archive of these files (None: a directory)."""
    data = b""
    for name, content in {**files, "TRAILER!!!": b""}.items():
        mode = 0o40755 if content is None else 0o100644
        numbers = (1, mode, 0, 0, 1, 0, len(content or b""), 0, 0, 0, 0, len(name) + 1, 0)
        data += b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
        data += bytes(-len(data) % 4) + (content or b"")
        data += bytes(-len(data) % 4)
    return data


def rpm(files: Mapping[str, Optional[bytes]], compression: str = "xz") -> bytes:
    """An RPM package of these files, with headers that have one entry each."""
    lead = b"\xed\xab\xee\xdb\x03\0" + bytes(90)
    signatures = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 5) + bytes(16 + 5)
    signatures += bytes(-len(signatures) % 8)
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 3) + bytes(16 + 3)
    return lead + signatures + header + PACKERS[compression](cpio(files))


def uimage(payload: bytes, arch: int = 2) -> bytes:
    """U-Boot's legacy image."""
    return struct.pack(">7I4B32s", 0x27051956, 0, 0, len(payload), 0, 0, 0, 5, arch, 2, 0, b"Linux") + payload


def unified(payload: bytes) -> bytes:
    """A PE file with a section .linux, as systemd-stub makes them."""
    headers = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<HH12xHH", 0x8664, 2, 16, 0)
    headers += bytes(16)
    for name, size, offset in ((b".text", 4, 0x200), (b".linux", len(payload), 0x400)):
        headers += struct.pack("<8sIIII16x", name, size, 0x1000, -(-size // 512) * 512, offset)
    return headers + bytes(0x400 - len(headers)) + payload + bytes(512)
