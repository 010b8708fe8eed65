"""The sample of the mirrors' kernels: how they are packed, and that their front parts are held against the whole."""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from unittest.mock import patch

import pytest

from sockpid_gen.kernel import front, vmlinux
from tests import kernel_files as make

from . import mirrors

RAW = make.arm64_image()


@pytest.mark.parametrize(
    ("path", "kernel", "form"),
    [
        ("./boot/vmlinuz-6.1", RAW, "raw"),
        ("./boot/vmlinuz-6.1", make.bzimage(lzma.compress(make.elf())), "xz"),
        ("./boot/vmlinux-6.1", make.elf(), "ELF"),
        ("./usr/lib/debug/boot/vmlinux-6.1", make.elf(), "debug"),
        ("./boot/vmlinuz-6.1", bytes(100), "scanned"),
    ],
)
def test_how_kernels_are_packed(path: str, kernel: bytes, form: str, tmp_path: Path) -> None:
    package = tmp_path / "linux.deb"
    package.write_bytes(make.deb({"./boot/config": b"x", path: kernel}))
    assert mirrors._form(package) == form


def test_a_front_that_tells_something_else_fails_the_run(tmp_path: Path) -> None:
    package = tmp_path / "linux.deb"
    package.write_bytes(make.deb({"./boot/vmlinuz-6.1": RAW[:0x40] + make.raw()[-6000:] + bytes(100_000)}))
    assert mirrors._package(package)["form"] == "raw"
    right = front.read

    def wrong(image: io.BufferedReader) -> vmlinux.Facts | None:
        facts = right(image)
        return facts and facts._replace(build_id="ff" * 20)

    with patch.object(front, "read", wrong), pytest.raises(AssertionError, match="tells something else"):
        mirrors._package(package)
