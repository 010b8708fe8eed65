"""Sections as pyelftools finds them, and their content as objcopy does."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sockpid.errors import SourceError
from sockpid_gen import sections
from tests import kernel_files as make

COMPILER = shutil.which("gcc") or shutil.which("clang-14")
SOURCE = "int word = 5; int main(void) { return word; }"


def object_file(directory: Path, *options: str, source: str = SOURCE, language: str = "c") -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler")
    path = directory / "object.o"
    command = [COMPILER, "-x", language, "-g", "-c", *options, "-o", path, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the compiler cannot do this: {done.stderr}")
    return path


def same_as_pyelftools(content: bytes) -> sections.Elf:
    file = io.BytesIO(content)
    elf, theirs = sections.read(file), ELFFile(io.BytesIO(content))
    assert elf.header.mark == ("<" if theirs.little_endian else ">")
    assert elf.header.is_64 == (theirs.elfclass == 64)
    assert [s.name for s in elf.sections] == [s.name for s in theirs.iter_sections()]
    for section, their in zip(elf.sections, theirs.iter_sections(), strict=True):
        head = their.header
        assert section[2:] == (head["sh_flags"], head["sh_offset"], head["sh_size"])
        assert (section.type == sections.SHT_NOBITS) == (head["sh_type"] == "SHT_NOBITS")
        assert (section.type == sections.SHT_NOTE) == (head["sh_type"] == "SHT_NOTE")
    return elf


@pytest.mark.parametrize(
    "content",
    [make.elf(), make.elf(byte_order="big", machine=make.S390X), Path(sys.executable).read_bytes()],
    ids=["little", "big", "program"],
)
def test_files_of_64_bit(content: bytes) -> None:
    assert same_as_pyelftools(content).header.is_64


def test_file_of_32_bit(tmp_path: Path) -> None:
    assert not same_as_pyelftools(object_file(tmp_path, "-m32").read_bytes()).header.is_64


def test_more_sections_than_the_header_can_count(tmp_path: Path) -> None:
    source = "".join(f'.section .s{n},"a"\n.byte 1\n' for n in range(66_000))
    path = object_file(tmp_path, source=source, language="assembler")
    assert len(same_as_pyelftools(path.read_bytes()).sections) > 66_000


@pytest.mark.parametrize("form", ["zlib", "zstd"])
def test_compressed_sections(tmp_path: Path, form: str) -> None:
    plain = object_file(tmp_path, source=SOURCE + "".join(f"int {'long' * 20}_{n};" for n in range(500)))
    packed = tmp_path / "packed.o"
    done = subprocess.run(
        ["objcopy", f"--compress-debug-sections={form}", plain, packed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"objcopy does not know {form}")
    contents = []
    for path in (plain, packed):
        with path.open("rb") as file:
            elf = sections.read(file)
            section = elf.named(".debug_str")
            assert section is not None
            assert bool(section.flags & sections.SHF_COMPRESSED) == (path == packed)
            contents.append(sections.content(file, elf, section))
            assert sections.content(file, elf, section, 16) == contents[-1][:16]
            if path == packed:
                damaged = section._replace(size=section.size // 2, offset=section.offset + 7)
                with pytest.raises(SourceError, match=r"section \.debug_str"):
                    sections.content(file, elf, damaged)
    assert contents[0] == contents[1]
    assert len(contents[0]) > 40_000


def test_a_section_is_mapped_wherever_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.elf({".text": bytes(5001), ".BTF": make.btf(), ".debug_info": b"x"}))
    with path.open("rb") as file:
        section = sections.read(file).named(".BTF")
        assert section is not None
        assert sections.mapped(file, section) == make.btf()


@pytest.mark.parametrize("size", [0, 4, 19, 63, 80, 500])
def test_truncated_headers(size: int) -> None:
    with pytest.raises(SourceError, match="damaged ELF file"):
        sections.read(io.BytesIO(make.elf()[:size]))
