"""Debug packages with vmlinux at their end: read from there, and the same as what reading all of it gives."""

from __future__ import annotations

import io
import lzma
import subprocess
import sys
import zlib
from pathlib import Path
from random import Random
from typing import IO, Any, BinaryIO, Dict, List, Mapping, Optional, Tuple, cast
from unittest.mock import patch

import pytest

from sockpid.errors import SourceError
from sockpid_gen.files import blocks, package
from sockpid_gen.kernel.source import open_source
from tests import kernel_files as make

VMLINUX = "./usr/lib/debug/lib/modules/6.1/vmlinux"
MODULES: Dict[str, bytes] = {
    f"./usr/lib/debug/lib/modules/6.1/kernel/{i:02}.ko": bytes([i]) * 3000 + b"ustar" * 100 for i in range(60)
}
LARGE = b"\x7fELF" + bytes(range(256)) * 100
LATER: Dict[str, Optional[bytes]] = {"./usr/share/doc/x": b"words", "./usr/lib/debug/vmlinux-6.1": None}


def deb(files: Mapping[str, Optional[bytes]], block: int = 4096) -> bytes:
    """A package whose archive is compressed in blocks of so many bytes."""
    return make.ar({"debian-binary": b"2.0\n", "data.tar.xz": make.xz_blocks(make.tar(files), block)})


Kernels = List[Tuple[str, bytes]]


def kernels(content: bytes, front: int = 0) -> Tuple[Kernels, bool]:
    """Kernels of a package, looked for from its end after `front` bytes; and whether they were found there."""
    tails: List[bool] = []
    from_last = blocks.from_last

    def told(*arguments: Any) -> Optional[IO[bytes]]:
        tail = from_last(*arguments)
        tails.append(tail is not None)
        return tail

    file = cast(BinaryIO, io.BytesIO(content))
    with patch.object(package, "_FRONT", front), patch.object(blocks, "from_last", told):
        found = [(name, kernel.read()) for name, kernel in package.kernel(file, "deb")]
    return found, any(tails)


@pytest.mark.parametrize("block", [512, 4096, 1 << 16, 200_704])
@pytest.mark.parametrize(
    "files",
    [
        {**MODULES, VMLINUX: LARGE},
        {**MODULES, VMLINUX: LARGE, **LATER},
        {**MODULES, VMLINUX: LARGE, **LATER, "./usr/share/more": bytes(100_000)},
        {**MODULES, VMLINUX: b"\x7fELF", **LATER},
    ],
    ids=["last", "before small ones", "before a large one", "small"],
)
def test_a_kernel_at_the_end(files: Mapping[str, Optional[bytes]], block: int) -> None:
    content = deb(files, block)
    assert kernels(content) == ([(VMLINUX, files[VMLINUX])], True)
    assert kernels(content, 1 << 30) == ([(VMLINUX, files[VMLINUX])], False)


def test_only_its_blocks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "k.deb"
    modules = {f"./lib/modules/{i}.ko": Random(i).randbytes(1 << 20) for i in range(8)}
    path.write_bytes(deb({**modules, VMLINUX: make.elf()}, 1 << 18))
    counts: List[int] = []
    with patch.object(package, "_FRONT", 1 << 20), open_source(path, tick=counts.append) as kernel:
        assert kernel.build_id == make.BUILD_ID
        assert sum(counts) < path.stat().st_size / 2


def test_of_several_the_last() -> None:
    files = {**MODULES, VMLINUX.replace("6.1", "6.0"): b"\x7fELF first", VMLINUX: LARGE}
    assert kernels(deb(files)) == ([(VMLINUX, LARGE)], True)


def test_a_name_within_a_file_is_none() -> None:
    """Bytes of a file that look like a header, but for the checksum or their place."""
    header = bytearray(make.tar({VMLINUX: b"x"})[:512])
    moved = bytes(100) + bytes(header)
    header[0] ^= 1
    files = {**MODULES, VMLINUX: LARGE, "./usr/share/header": bytes(header), "./usr/share/moved": moved}
    assert kernels(deb(files)) == ([(VMLINUX, LARGE)], True)


@pytest.mark.parametrize(
    "content",
    [
        make.deb({**MODULES, VMLINUX: LARGE}),
        make.deb({**MODULES, VMLINUX: LARGE}, "gz"),
        deb({**MODULES, VMLINUX: LARGE}, 1000),
    ],
    ids=["one block", "no xz", "blocks that headers do not fit into"],
)
def test_without_such_blocks_it_is_read_from_its_start(content: bytes) -> None:
    assert kernels(content) == ([(VMLINUX, LARGE)], False)


def test_more_than_allowed_is_not_unpacked() -> None:
    content = deb({**MODULES, VMLINUX: LARGE})
    with patch.object(package, "FILE_MAX", 10_000):
        assert kernels(content) == ([(VMLINUX, LARGE)], False)  # from its start: who reads it has the same limit


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.97, 0.999])
def test_damage_is_told(part: float) -> None:
    content = bytearray(deb({**MODULES, VMLINUX: LARGE, **LATER}))
    content[int(len(content) * part)] ^= 0xFF
    try:
        found, _ = kernels(bytes(content))
    except SourceError:
        return
    assert found == [(VMLINUX, LARGE)], "what is not damaged, or an error"


def test_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "k.deb"
    path.write_bytes(deb({**MODULES, **LATER}))
    with patch.object(package, "_FRONT", 0), pytest.raises(SourceError, match="no kernel in it"), open_source(path):
        pass


def test_a_dictionary_of_any_size(tmp_path: Path) -> None:
    """A block that asks for 4 GiB takes no more memory than it has bytes."""
    packed = bytearray(make.xz_blocks(make.tar({**MODULES, VMLINUX: LARGE})))
    (tmp_path / "data.tar.xz").write_bytes(packed)
    command = ["xz", "--robot", "--list", "-vv", str(tmp_path / "data.tar.xz")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for at in (int(line.split("\t")[4]) for line in lines if line.startswith("block")):
        # A block's header: its size in words, what it has, sizes, LZMA2 (0x21) with one byte for the dictionary; CRC32.
        end = at + packed[at] * 4
        packed[packed.index(b"\x21\x01", at) + 2] = 40
        packed[end : end + 4] = zlib.crc32(packed[at:end]).to_bytes(4, "little")
    with pytest.raises(lzma.LZMAError, match="limit"):
        lzma.decompress(bytes(packed), memlimit=1 << 30)
    path = tmp_path / "k.deb"
    path.write_bytes(make.ar({"debian-binary": b"2.0\n", "data.tar.xz": bytes(packed)}))
    code = (
        "import re, sys\nfrom sockpid.errors import SourceError\nfrom sockpid_gen.files import blocks, package\n"
        "file = open(sys.argv[1], 'rb')\n_, offset, size = package.deb.data(file)\n"
        "rest = blocks.from_last(blocks.Part(file, offset, size, lambda _: None), re.compile('none'), 1 << 30)\n"
        "print(rest, int(re.search('VmHWM:[^0-9]*([0-9]+)', open('/proc/self/status').read())[1]) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "gen:runtime"},
    )
    none, peak = done.stdout.split()
    assert none == "None"
    assert int(peak) < 100
