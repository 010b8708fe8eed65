"""What is fuzzed: every reader of files from elsewhere. Each takes bytes; a SockpidError is a right answer, too."""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import tarfile
from pathlib import Path
from typing import Callable, Dict
from unittest.mock import patch

from sockpid import elf_notes as notes
from sockpid.arch import ARCHES
from sockpid.btf.btf import Btf
from sockpid.btf.index import Index
from sockpid.errors import BtfError, SockpidError
from sockpid.image import image
from sockpid.table import table
from sockpid_gen.btf import finder
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.files import blocks, package
from sockpid_gen.files.stream import copy
from sockpid_gen.kernel import front, source, vmlinuz
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

CORPUS = Path(__file__).parent / "corpus"
WANTED = {
    "struct sock": frozenset(("sk_protocol", "state", "in.x", "many[1].x", "gone", "deep")),
    "union u": frozenset("xy"),
    "enum e": frozenset(("A", "B")),
}


def btf(data: bytes) -> None:
    """Both readers of BTF; where both answer, they agree."""
    blob = Btf(data)
    layout = blob.extract(WANTED, 8)
    blob.func_ids(["tcp_connect", "sock"])
    for type_id in blob.ids()[:200]:
        blob.type(type_id)
    theirs = drgn_layout.extract(finder.BtfTypes(data, ARCHES["x86_64"]).prog, WANTED)
    assert layout.keys() == theirs.keys()


def index(data: bytes) -> None:
    """The index of records: whatever it is given, each number it knows has a record, or an error."""
    for chunk in (16, 1 << 16):
        with patch("sockpid.btf.section._CHUNK", chunk), patch("sockpid.btf.index._BLOCK", 16):
            found = Index(data, 0, len(data) & ~3, 1, {})
            for number in range(min(len(found), 300)):
                with contextlib.suppress(BtfError):
                    found.record(number)
            found.named((1, 5, 9), (4, 12))


def kernel_file(data: bytes, path: Path) -> None:
    """Packages, archives, images and ELF files, as `sockpid-gen add` opens them."""
    path.write_bytes(data)
    given = source.Given(arch="x86_64", banner=make.BANNER)
    for kernel in source.each_source(path, given):
        assert kernel.btf is not None or kernel.dwarf is not None


def package_file(data: bytes, path: Path) -> None:
    """All files of a package, whatever they are called."""
    path.write_bytes(data)
    with path.open("rb") as file, (path.parent / "content").open("w+b") as content:
        what = package.kind(file)
        if what is not None:
            for _, stream in package.files(file, what):
                copy(stream, content, 64 << 20)


def archive_end(data: bytes, path: Path) -> None:
    """Part of a tar archive, from the last kernel in it on."""
    path.write_bytes(data)
    with path.open("rb") as file:
        rest = blocks.from_last(blocks.Part(file, 0, len(data), lambda _: None), package.KERNEL, 8 << 20)
        if rest is not None:
            with rest, tarfile.open(fileobj=rest, mode="r|") as tar:
                info = tar.next()
                assert info is not None
                assert info.isreg()
                assert package.KERNEL.match(info.name)


def kernel_image(data: bytes) -> None:
    vmlinuz.unpack(data)


def kernel_front(data: bytes) -> None:
    """What the front part tells is believed: it has an answer to everything."""
    facts = front.read(front.buffered(io.BytesIO(data)))
    assert facts is None or (facts.banner and facts.btf)


def offsets(data: bytes) -> None:
    """A shard of the table: parsed, and every kernel's layout looked at."""
    shard = table.parse_shard(data, "fuzz.json")
    for entry in shard.entries:
        shard.layout(entry)


def bytecode(data: bytes) -> None:
    """With a digest that is right, so that there is something behind it to be reached."""
    head, brace, rest = data.partition(b"{")
    opened = head + brace + b'"content": "'
    digest = image.content_digest(opened + b"0" * 64 + b'", ' + rest)
    image.parse_image(opened + digest.encode() + b'", ' + rest, "fuzz.json")


def elf_notes(data: bytes) -> None:
    for order in ("little", "big"):
        list(notes.parse_notes(data, order))


PURE: Dict[str, Callable[[bytes], None]] = {
    "btf": btf,
    "index": index,
    "image": kernel_image,
    "front": kernel_front,
    "table": offsets,
    "bytecode": bytecode,
    "notes": elf_notes,
}
FILES: Dict[str, Callable[[bytes, Path], None]] = {
    "kernel": kernel_file,
    "package": package_file,
    "blocks": archive_end,
}


def run(name: str, data: bytes, directory: Path) -> None:
    """One input for one target. Raises what is no SockpidError."""
    try:
        if name in PURE:
            PURE[name](data)
        else:
            FILES[name](data, directory / "input")
    except SockpidError as error:
        if not str(error):
            raise AssertionError("an error that says nothing") from error


def rich_btf(byte_order: str) -> bytes:
    """One of every kind of record."""
    b = BtfBuilder(byte_order)
    i32, u8 = b.integer("int", 4, signed=True), b.integer("unsigned char", 1)
    inner = b.struct("inner", 4, ("x", i32, 0))
    anonymous = b.struct("", 8, ("deep", i32, 0), kind=5)
    const = b.record(8, "inner_t", b.record(9, "", b.record(10, "", inner)))
    b.bitfield_struct("sock", 64, ("sk_protocol", i32, 0, 0), ("state", u8, 32, 5), ("in", const, 64, 0))
    b.struct("sock2", 64, ("many", b.array(const, 3), 192), ("", anonymous, 320), ("self", b.pointer(b.next_id), 8))
    b.struct("u", 8, ("x", i32, 0), kind=5)
    b.enum("e", ("A", -1), ("B", 1 << 24), signed=True)
    b.enum("e64", ("C", 1 << 40), wide=True)
    b.record(7, "fwd", 0)
    b.record(16, "double", 8)
    b.record(18, "tag", i32)
    b.record(17, "decl", inner, (0xFFFFFFFF,))
    proto = b.record(13, "", i32, (b.name("x"), i32, 0, 0), vlen=2)
    b.record(12, "tcp_connect", proto)
    variable = b.record(14, "v", i32, (1,))
    b.record(15, ".data", 4, (variable, 0, 4), vlen=1)
    b.record(12, "last", b.record(13, "", 0))
    return b.build()


@functools.cache
def seeds(name: str) -> Dict[str, bytes]:
    """Well-formed inputs to start from, beside those in corpus/."""
    elf = make.elf({".rodata": make.BANNERS, ".notes": make.build_id_note(), ".BTF": rich_btf("little")})
    files = {"./boot/config": b"x" * 50, "./boot/vmlinuz-6.1": elf}
    packages = {
        "deb": make.deb(files, ""),
        "deb.xz": make.deb(files),
        "rpm": make.rpm(files, ""),
        "rpm.gz": make.rpm(files, "gz"),
        "tar": make.tar({"vmlinux": elf, "a.btf": rich_btf("little")}),
    }
    images = {
        "bzimage": make.bzimage(make.PACKERS["gz"](elf)),
        "zboot": make.zboot(make.PACKERS["bz2"](make.arm64_image()[250_000:])),
        "lzma": lzma.compress(elf, lzma.FORMAT_ALONE),
        "uimage": make.uimage(make.PACKERS["xz"](elf)),
        "unified": make.unified(make.bzimage(make.PACKERS["xz"](elf))),
        "elf": elf,
    }
    tail = bytes(80_000)
    fronts = {
        "raw": make.arm64_image()[:64] + make.raw()[-6000:] + tail,
        "gzip": make.bzimage(make.PACKERS["gz"](elf + tail)),
        "xz": make.zboot(make.PACKERS["xz"](make.arm64_image()[:64] + elf + tail)),
    }
    blobs = {order: rich_btf(order) for order in ("little", "big")}
    found: Dict[str, bytes] = {
        "btf": blobs,
        "index": {order: blob[24:] for order, blob in blobs.items()},
        "kernel": {**packages, **images, **blobs},
        "package": packages,
        "image": images,
        "front": fronts,
        "blocks": {"blocks": make.xz_blocks(make.tar({"./a.ko": elf, "./boot/vmlinuz-6.1": elf, "./b": None}))},
        "notes": {"note": make.build_id_note() * 2},
    }.get(name, {})
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()}
    return {**found, **kept}
