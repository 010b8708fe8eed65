"""BTF of a module on top of its kernel's."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Dict

import pytest

from sockpid.btf import header
from sockpid.btf.btf import Btf
from sockpid.errors import SourceError
from sockpid.table.layout import Field, Struct
from sockpid_gen.kernel import module
from tests import kernel_files as make
from tests.btf_builder import BtfBuilder

RELEASE = "6.1.0-1-test"
MODINFO = b"license=GPL\0vermagic=" + RELEASE.encode() + b" SMP preempt mod_unload \0"


@pytest.fixture
def base() -> Btf:
    return Btf(make.btf())


def split_btf(base: Btf) -> bytes:
    """struct tls_context { unsigned short a; struct sock in; }, of whose members' types only the kernel knows."""
    strings = header.split(make.btf()).strings
    b = BtfBuilder(first_id=len(base) + 1, first_string=strings.stop - strings.start)
    (sock,) = base.find(["sock"], frozenset((4,)))["sock"]
    b.struct("tls_context", 8, ("a", 1, 0), ("in", sock, 32))
    return b.build()


def read(path: Path, content: bytes, base: Btf) -> Btf:
    path.write_bytes(content)
    return module.read(path, RELEASE, base)


def test_types_of_a_module_and_of_its_kernel(tmp_path: Path, base: Btf) -> None:
    ko = make.elf({".modinfo": MODINFO, ".BTF": split_btf(base)})
    wanted = {"struct tls_context": frozenset(("a", "in.state")), "struct sock": frozenset(("sk_protocol",))}
    for content in (ko, lzma.compress(ko), make.PACKERS["gz"](ko), split_btf(base)):
        layout = read(tmp_path / "tls.ko", content, base).extract(wanted, 8)
        own, kernels = layout["struct tls_context"], layout["struct sock"]
        assert isinstance(own, Struct)
        assert own.fields == {"a": Field(0, 16), "in.state": Field(48, 5, bitfield=True)}
        assert isinstance(kernels, Struct)
        assert kernels.size == 4


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({".modinfo": MODINFO}, "the module has no BTF"),
        ({".text": b"x"}, "no kernel module"),
        ({".modinfo": MODINFO.replace(b"6.1.0-1", b"6.1.0-2"), ".BTF": b""}, "built for 6.1.0-2-test, not for 6.1.0-1"),
        ({".modinfo": b"license=GPL\0", ".BTF": b""}, "built for an unknown release"),
        ({".modinfo": MODINFO, ".BTF": b"", ".BTF.base": b""}, "a base of its own"),
    ],
)
def test_modules_that_do_not_fit(tmp_path: Path, base: Btf, sections: Dict[str, bytes], message: str) -> None:
    with pytest.raises(SourceError, match=f"tls.ko: .*{message}"):
        read(tmp_path / "tls.ko", make.elf(sections), base)


def test_damaged_and_missing_modules(tmp_path: Path, base: Btf) -> None:
    with pytest.raises(SourceError, match="damaged ELF file"):
        read(tmp_path / "tls.ko", make.elf({".modinfo": MODINFO})[:90], base)
    with pytest.raises(SourceError, match="compressed data are damaged"):
        read(tmp_path / "tls.ko", lzma.compress(b"x" * 99)[:-9], base)
    with pytest.raises(SourceError, match="No such file"):
        module.read(tmp_path / "gone.ko", RELEASE, base)
