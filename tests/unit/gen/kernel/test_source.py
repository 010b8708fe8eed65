"""Kernels in every wrapping: packages, bootable images, ELF files, bare BTF; whole, damaged, truncated, or empty."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import sys
from pathlib import Path
from typing import Callable, List, Optional

import lz4.block
import pytest

from sockpid.arch import of_elf
from sockpid.errors import SockpidError, SourceError, UnsupportedArchError, UsageError
from sockpid_gen.kernel import vmlinux
from sockpid_gen.kernel.source import Given, KernelSource, open_source
from sockpid_gen.kernel.vmlinuz import unpack
from tests import kernel_files as make

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "source"


def opened(path: Path, content: bytes, given: Optional[Given] = None) -> KernelSource:
    path.write_bytes(content)
    with open_source(path, given or Given()) as kernel:
        return kernel


def test_elf(file: Path) -> None:
    kernel = opened(file, make.elf())
    assert kernel.arch.name == "x86_64"
    assert (kernel.release, kernel.banner) == ("6.1.0-1-test", make.BANNER)
    assert (kernel.build_id, kernel.btf, kernel.dwarf) == (make.BUILD_ID, make.btf(), None)
    assert (kernel.file, kernel.sha256) == ("source", hashlib.sha256(make.elf()).hexdigest())


def test_big_endian_elf(file: Path) -> None:
    kernel = opened(file, make.elf(byte_order="big", machine=make.S390X))
    assert (kernel.arch.name, kernel.build_id) == ("s390x", make.BUILD_ID)
    assert kernel.btf == make.btf("big")


def test_elf_with_dwarf_alone_stays_open_for_drgn(file: Path) -> None:
    file.write_bytes(make.elf({".rodata": make.BANNERS, ".debug_info": b"x"}))
    with open_source(file) as kernel:
        assert kernel.btf is None
        assert kernel.build_id is None
        assert kernel.dwarf is not None
        assert not kernel.dwarf.closed
    assert kernel.dwarf.closed


def test_btf_beside_dwarf_is_not_in_memory_before_it_is_asked_for(file: Path) -> None:
    file.write_bytes(make.elf({".rodata": make.BANNERS, ".BTF": make.btf(), ".debug_info": b"x"}))
    with open_source(file) as kernel:
        assert isinstance(kernel.btf, memoryview)
    assert kernel.btf == make.btf()


def lz4_legacy(data: bytes) -> bytes:
    block: bytes = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", len(data))


PACKERS = pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lzma.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        bz2.compress,
        zstd.compress,
        lz4_legacy,
    ],
    ids=["gzip", "xz", "lzma", "bzip2", "zstd", "lz4"],
)


@PACKERS
def test_bzimage(file: Path, pack: Callable[[bytes], bytes]) -> None:
    image = make.bzimage(pack(make.elf()))
    assert opened(file, image).btf == make.btf()
    for size in range(0, len(image) - 8, 97):
        with pytest.raises(SockpidError):
            opened(file, image[:size])


@PACKERS
def test_efi_zboot(file: Path, pack: Callable[[bytes], bytes]) -> None:
    assert opened(file, make.zboot(pack(make.arm64_image()))).arch.name == "aarch64"


@pytest.mark.parametrize("image", [make.arm64_image(), gzip.compress(make.arm64_image())], ids=["raw", "gzip"])
def test_raw_arm64_image_takes_the_notes_before_btf(file: Path, image: bytes) -> None:
    kernel = opened(file, image)
    assert (kernel.arch.name, kernel.build_id, kernel.banner) == ("aarch64", make.BUILD_ID, make.BANNER)
    assert kernel.btf == make.btf()


def test_riscv_arm_and_s390x_images() -> None:
    riscv = bytearray(0x40)
    riscv[0x30:0x35], riscv[0x38:0x3C] = b"RISCV", b"RSC\x05"
    assert unpack(bytes(riscv)).arch == of_elf(243, 8, "little")
    arm = bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(100) + gzip.compress(b"\0" * (2 << 20))
    assert unpack(arm).arch == of_elf(40, 4, "little")
    s390 = bytearray(0x10100)
    s390[0x10008:0x1000E] = b"S390EP"
    kernel = unpack(bytes(s390) + gzip.compress(b"\0" * (2 << 20)))
    assert kernel.arch is not None
    assert (kernel.arch.name, len(kernel.data)) == ("s390x", 2 << 20)


def test_raw_image_without_build_id() -> None:
    facts = vmlinux.read_raw(make.BANNERS + make.btf(), of_elf(183, 8, "little"))
    assert (facts.build_id, facts.btf, facts.banner) == (None, make.btf(), make.BANNER)


@pytest.mark.parametrize(
    "path",
    [
        "./boot/vmlinuz-6.1.0-1-test",
        "boot/vmlinux-6.1.0-1-test",
        "./lib/modules/6.1.0-1-test/vmlinuz",
        "./usr/lib/modules/6.1.0-1-test/vmlinuz",
        "./usr/lib/debug/boot/vmlinux-6.1.0-1-test",
        "./usr/lib/debug/lib/modules/6.1.0-1-test/vmlinux",
    ],
)
@pytest.mark.parametrize("compression", ["xz", "gz", ""])
def test_package(file: Path, path: str, compression: str) -> None:
    files = {"./boot/config-6.1": b"x", "./usr/lib/debug/vmlinux-6.1": None, path: make.elf(), "./z": b"z" * 100}
    kernel = opened(file, make.deb(files, compression))
    assert (kernel.build_id, kernel.btf) == (make.BUILD_ID, make.btf())


def test_package_reports_what_it_reads(file: Path) -> None:
    file.write_bytes(make.deb({"./boot/vmlinuz-6.1": make.elf()}))
    counts: List[int] = []
    with open_source(file, tick=counts.append):
        pass
    assert 0 < sum(counts) <= file.stat().st_size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make.deb({"./usr/share/doc/x": b"x", "./boot/vmlinuz-6.1": None}), "package has no kernel in it"),
        (make.deb({}), "package has no kernel in it"),
        (make.ar({"debian-binary": b"2.0\n"}), "no data.tar"),
        (make.ar({"data.tar.xz": b"garbage"}), "package is damaged"),
        (make.ar({"data.tar.rle": b"garbage"}), "package is damaged"),
        (b"!<arch>\n" + b"x" * 60, "bad header"),
        (b"!<arch>\ndebian-b", "bad header"),
        (b"#!/bin/sh\n" * 100, "no kernel image that is known here"),
        (b"", "no kernel image that is known here"),
        (make.elf({".BTF": make.btf()}), "no version banner"),
        (make.elf({".rodata": make.BANNERS}), "neither BTF nor DWARF .* linux-image-RELEASE-dbg"),
        (make.elf()[:80], "damaged ELF file"),
    ],
)
def test_what_is_no_kernel(file: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=f"^{file}: .*{message}"):
        opened(file, content)


def test_every_truncated_package_is_an_error(file: Path) -> None:
    package = make.deb({"./boot/config": bytes(1000), "./boot/vmlinuz-6.1": make.elf()})
    for size in range(0, len(package) - 60, 13):
        with pytest.raises(SourceError):
            opened(file, package[:size])


def test_damaged_packages_are_errors(file: Path) -> None:
    package = bytearray(make.deb({"./boot/vmlinuz-6.1": make.elf()}))
    package[-40] ^= 0xFF
    with pytest.raises(SourceError, match="compressed data are damaged"):
        opened(file, bytes(package))


@pytest.mark.parametrize("size", [1 << 40, (1 << 64) - 1])
def test_section_that_claims_to_be_larger_than_its_file(file: Path, size: int) -> None:
    elf = bytearray(make.elf())
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    for number in (1, 2, 3):  # .rodata, .notes, .BTF
        damaged = elf[:]
        struct.pack_into("<Q", damaged, headers + 64 * number + 32, size)
        with pytest.raises(SourceError, match="reaches past its end"):
            opened(file, bytes(damaged))


def test_unknown_architecture(file: Path) -> None:
    with pytest.raises(UnsupportedArchError, match="ELF machine 258"):
        opened(file, make.elf(machine=258))


def test_missing_file(file: Path) -> None:
    with pytest.raises(SourceError, match="No such file"), open_source(file):
        pass


def test_bare_btf_needs_an_identity(file: Path) -> None:
    with pytest.raises(UsageError, match=r"also give --arch and --banner \(and --build-id"):
        opened(file, make.btf())
    with pytest.raises(UsageError, match=r"also give --banner \(and"):
        opened(file, make.btf(), Given(arch="x86_64"))
    with pytest.raises(UsageError, match="is not what /proc/version says"):
        opened(file, make.btf(), Given(arch="x86_64", banner="6.1"))
    kernel = opened(file, make.btf(), Given(arch="armv7l", banner=make.BANNER + "\n", build_id="ab"))
    assert (kernel.arch.name, kernel.release, kernel.banner, kernel.build_id) == (
        "arm",
        "6.1.0-1-test",
        make.BANNER,
        "ab",
    )


@pytest.mark.parametrize(
    "given",
    [Given(arch="s390x"), Given(release="6.1.0-2"), Given(build_id="ab"), Given(banner="Linux version 6.1 #1")],
)
def test_given_identity_must_not_contradict_the_kernel(file: Path, given: Given) -> None:
    with pytest.raises(UsageError, match="contradicts the kernel itself"):
        opened(file, make.elf(), given)


@pytest.mark.parametrize(
    ("banner", "distribution"),
    [
        ("Linux version 6.1 (debian-kernel@lists.debian.org) #1", "debian"),
        ("Linux version 6.8.0-31-generic (buildd@lcy02) (gcc) #31-Ubuntu SMP", "ubuntu"),
        ("Linux version 6.11.4-301.fc41.x86_64 (mockbuild@x) #1", "fedora"),
        ("Linux version 4.18.0-147.5.1.el8_1.aarch64 (mockbuild@x) #1", "el"),
        ("Linux version 6.1.102-108.177.amzn2023.x86_64 (x@y) #1", "amazon"),
        ("Linux version 6.1 (me@home) #1", None),
    ],
)
def test_distribution(banner: str, distribution: Optional[str]) -> None:
    assert vmlinux.distribution_of(banner) == distribution


OTHER_BANNER = make.BANNER.replace("#1", "#2").encode()


@pytest.mark.parametrize("where", [".rodata", ".data"])
def test_two_banners_are_one_too_many(file: Path, where: str) -> None:
    sections = {".rodata": make.BANNERS, ".notes": make.build_id_note(), ".BTF": make.btf()}
    sections[where] = sections.get(where, b"") + b"\0" + OTHER_BANNER + b"\n\0"
    with pytest.raises(SourceError, match=r"several version banners: 'Linux .*#1 .*' and 'Linux .*#2 "):
        opened(file, make.elf(sections))
    # One that is there twice is one.
    sections[where] = sections[where].replace(OTHER_BANNER, make.BANNER.encode())
    assert opened(file, make.elf(sections)).banner == make.BANNER


def test_two_banners_in_images_and_in_front_of_them(file: Path) -> None:
    for image in (make.arm64_image(), make.raw()):
        twice = image.replace(make.BANNERS, make.BANNERS + OTHER_BANNER + b"\n\0")
        with pytest.raises(SourceError, match="several version banners"):
            vmlinux.read_raw(twice, of_elf(183, 8, "little"))
    twice = make.arm64_image().replace(make.BANNERS, make.BANNERS + OTHER_BANNER + b"\n\0")
    with pytest.raises(SourceError, match="several version banners"):
        opened(file, make.deb({"./boot/vmlinuz-6.1.0-1-test": twice}))


def test_a_module_is_no_kernel_whatever_it_is_said_to_be(file: Path) -> None:
    """An object file (ET_REL): a kernel's types are not all in it."""
    module = bytearray(make.elf({".modinfo": b"vermagic=6.1.0-1-test SMP \0", ".BTF": make.btf()}))
    struct.pack_into("<H", module, 16, 1)
    with pytest.raises(SourceError, match="no linked kernel but an object file"):
        opened(file, bytes(module), Given(banner=make.BANNER, build_id="ab"))


@pytest.mark.parametrize(
    ("path", "is_right"),
    [
        ("./boot/vmlinuz-6.1.0-1-test", True),
        ("./boot/vmlinuz-6.1", True),
        ("./usr/lib/modules/6.1.0-1-test/vmlinuz", True),
        ("./boot/vmlinuz-6.1.0-2-test", False),
        ("./boot/vmlinuz-6.1.0-1-test2", False),
        ("./boot/vmlinuz-6.1.0-10-test", False),
        ("./usr/lib/modules/6.1.0-1-tes/vmlinuz", False),
        ("./usr/lib/debug/boot/vmlinux-6.12.0-1-test", False),
    ],
)
def test_a_package_must_not_contradict_its_kernel(file: Path, path: str, is_right: bool) -> None:
    package = make.deb({path: make.elf()})
    if is_right:
        assert opened(file, package).release == "6.1.0-1-test"
        return
    with pytest.raises(
        SourceError, match=r"package contradicts itself: the kernel in .* says that it is Linux version 6"
    ):
        opened(file, package)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(banner="nonsense"), "--banner 'nonsense' is not what /proc/version says"),
        (Given(banner="Linux version 6.1.0-1-test"), "is not what /proc/version says"),
        (Given(banner=make.BANNER, build_id="AB"), "--build-id 'AB' is none: bytes in lower-case hex"),
        (Given(banner=make.BANNER, build_id="abc"), "--build-id 'abc' is none"),
    ],
)
def test_a_given_identity_has_to_be_one(file: Path, given: Given, message: str) -> None:
    for content in (make.elf(), make.elf({".BTF": make.btf()})):
        with pytest.raises(UsageError, match=message):
            opened(file, content, given)
