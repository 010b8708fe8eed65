"""Sections of ELF files, and whose architecture they are for."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sockpid.errors import SourceError, UnsupportedArchError
from sockpid.host import kernel
from sockpid_gen.files import sections
from tests import kernel_files as make


def test_architectures() -> None:
    assert sections.arch_of(make.elf(byte_order="big", machine=make.S390X)).name == "s390x"
    assert sections.arch_of(Path(sys.executable).read_bytes()) == kernel.identify().arch
    with pytest.raises(UnsupportedArchError):
        sections.arch_of(make.elf(machine=1))


def test_a_section_is_mapped_wherever_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.elf({".text": bytes(5001), ".BTF": make.btf(), ".debug_info": b"x"}))
    with path.open("rb") as file, sections.opened(file) as elf:
        section = elf.get_section_by_name(".BTF")
        assert section is not None
        assert section["sh_offset"] % 4096
        assert sections.mapped(file, section) == make.btf() == sections.content(file, section)


@pytest.mark.parametrize("size", [0, 4, 19, 63, 80, 500])
def test_truncated_headers(size: int) -> None:
    with pytest.raises(SourceError, match="damaged ELF file"), sections.opened(io.BytesIO(make.elf()[:size])) as elf:
        list(elf.iter_sections())


@pytest.mark.parametrize("size", [0, 4, 19])
def test_truncated_identity(size: int) -> None:
    with pytest.raises(SourceError, match="damaged ELF file"):
        sections.arch_of(make.elf()[:size])
