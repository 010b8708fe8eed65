"""Kernels known by their front part: the same as when they are read whole, and only where the place proves it."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

import pytest

from sockpid.arch import ARCHES
from sockpid_gen.kernel import front, vmlinux
from sockpid_gen.kernel.source import open_source
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

REST = os.urandom(1 << 20)
"""What comes after: more than is looked at together."""


def large_btf() -> bytes:
    """BTF larger than the kernel's, as no BPF program has it."""
    b = BtfBuilder()
    for n in range(2000):
        b.integer(f"number{n}", 4)
    return b.build()


def image(*parts: bytes) -> bytes:
    """An arm64 image of these parts after its header, and much more behind them."""
    start = bytearray(0x40)
    start[0x38:0x3C] = b"ARM\x64"
    return b"".join((start, *parts, REST))


RODATA = make.BANNERS + bytes(-len(make.BANNERS) % 4)
LINUX_NOTE = b"\x06\0\0\0\x01\0\0\0\0\x01\0\0Linux\0\0\0\0\0\0\0"
KERNEL = image(RODATA, make.build_id_note(), LINUX_NOTE, bytes(2000), make.btf())


class Cut(io.RawIOBase):
    """The first `size` bytes of something longer; to read on is an error."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__()
        self._file, self._left = io.BytesIO(data), size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer)
        data = self._file.read(min(len(room), self._left))
        assert data, "read behind what is needed"
        self._left -= len(data)
        room[: len(data)] = data
        return len(data)


def told(data: bytes, size: Optional[int] = None) -> Optional[vmlinux.Facts]:
    return front.read(front.buffered(io.BytesIO(data) if size is None else Cut(data, size)))


def test_nothing_behind_btf_is_read() -> None:
    at = len(KERNEL) - len(REST)
    found = told(KERNEL, at + (256 << 10))
    assert found == (ARCHES["aarch64"], make.BANNER, make.BUILD_ID, make.btf(), False)


@pytest.mark.parametrize(
    "kernel",
    [
        KERNEL,
        gzip.compress(KERNEL),
        make.zboot(gzip.compress(KERNEL)),
        make.bzimage(lzma.compress(make.elf() + REST)),
        make.bzimage(zstd.compress(make.elf() + REST)),
    ],
    ids=["raw", "gzip", "zboot", "xz", "zstd"],
)
def test_a_package_says_what_its_whole_kernel_says(
    kernel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "linux.deb"
    path.write_bytes(make.deb({"./boot/vmlinuz-6.1.0-1-test": kernel}))
    front_read: Callable[[io.BufferedReader], Optional[vmlinux.Facts]] = front.read
    told_by: list[bool] = []

    def watched(stream: io.BufferedReader) -> Optional[vmlinux.Facts]:
        facts = front_read(stream)
        told_by.append(facts is not None)
        return facts

    monkeypatch.setattr(front, "read", watched)
    with open_source(path) as by_front:
        pass
    monkeypatch.setattr(front, "read", lambda _: None)
    with open_source(path) as whole:
        pass
    assert told_by == [True]
    assert by_front == whole


@pytest.mark.parametrize("shift", range(-24, 5))
def test_what_lies_across_pieces_is_found(shift: int) -> None:
    at = 4 * front._STEP - front._REACH + shift  # where a look ends, and the next one goes on
    banner = make.BANNER.encode() + b"\n\0"
    found = told(image(bytes(at - 0x40), banner, bytes(60_000), make.build_id_note(), make.btf()))
    assert found is not None
    assert found.banner == make.BANNER
    found = told(image(banner, bytes(at - 0x40 - len(banner)), make.build_id_note(), make.btf()))
    assert found is not None
    assert found.build_id == make.BUILD_ID


@pytest.mark.parametrize(
    "kernel",
    [
        image(RODATA, large_btf(), make.build_id_note(), bytes(60), make.btf()),
        image(RODATA, make.build_id_note(build_id="ff" * 20), b"vDSO", large_btf(), make.build_id_note(), make.btf()),
    ],
    ids=["before", "behind a vDSO's notes and something else"],
)
def test_btf_that_is_elsewhere_is_not_the_kernels(kernel: bytes) -> None:
    found = told(kernel)
    assert found is not None
    assert (found.btf, found.build_id) == (make.btf(), make.BUILD_ID)


@pytest.mark.parametrize(
    "kernel",
    [
        image(RODATA, make.btf()),
        image(RODATA, make.build_id_note(), b"something", make.btf()),
        image(RODATA, make.build_id_note(), bytes(70_000), make.btf()),
        image(RODATA, make.build_id_note(), make.btf()[:-1] + b"x"),
        image(make.build_id_note(), make.btf(), REST, RODATA),
        image(RODATA, make.build_id_note(), make.btf())[: -len(REST) - 1],
        image(RODATA, make.build_id_note()),
        make.elf({".rodata": make.BANNERS, ".notes": make.build_id_note()}) + REST,
        make.elf(machine=1) + REST,
        make.bzimage(lzma.compress(make.elf() + REST)[:200]),
        make.bzimage(b"\x1f\x8b\x08 no gzip"),
        b"no kernel",
        b"",
    ],
    ids=[
        "no notes", "something in between", "too far", "bad strings", "banner behind", "cut off", "no BTF",
        "ELF without", "unknown machine", "truncated", "damaged", "nothing known", "empty",
    ],
)  # fmt: skip
def test_others_are_read_whole(kernel: bytes) -> None:
    assert told(kernel) is None


def test_a_package_whose_front_tells_nothing_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "linux.deb"
    path.write_bytes(make.deb({"./boot/config-6.1": b"x" * 5000, "./boot/vmlinuz-6.1": image(RODATA, make.btf())}))
    with open_source(path) as kernel:
        assert (kernel.btf, kernel.build_id) == (make.btf(), None)


def test_what_expands_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "KERNEL_MAX", 1 << 20)
    assert told(make.bzimage(gzip.compress(make.elf({".text": bytes(2 << 20)}) + make.elf() + REST))) is None
