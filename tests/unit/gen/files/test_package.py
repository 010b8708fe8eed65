"""Kernels in packages and archives of every kind, and in those that were made to do harm."""

from __future__ import annotations

import io
import lzma
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from sockpid.errors import NoTypesError, SockpidError, SourceError
from sockpid_gen.files import decompress, package, stream
from sockpid_gen.kernel import source
from sockpid_gen.kernel.source import Given, each_source, open_source
from tests import kernel_files as make

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GIVEN = Given(arch="aarch64", banner=make.BANNER)


def read(path: Path, content: bytes, given: Given = source.NOTHING_GIVEN) -> source.KernelSource:
    path.write_bytes(content)
    with open_source(path, given) as kernel:
        return kernel


def names(path: Path) -> List[str]:
    return [str(kernel.build_id) for kernel in each_source(path)]


@pytest.mark.parametrize(
    "name",
    [
        "./lib/modules/6.11.4-301.fc41.x86_64/vmlinuz",
        "./boot/vmlinux-6.4.0-150600.23-default.gz",
        "./usr/lib/modules/6.4.0-150600.23-default/Image",
        "./usr/lib/debug/lib/modules/6.11.4-301.fc41.x86_64/vmlinux",
        "/usr/lib/debug/usr/lib/modules/6.4.0-default/vmlinux.debug",
        "usr/lib/modules/6.12.1-arch1-1/vmlinuz",
    ],
)
@pytest.mark.parametrize("compression", ["xz", "gz", "bz2", ""])
def test_rpm(tmp_path: Path, name: str, compression: str) -> None:
    (release,) = re.findall(r"6\.[0-9.]+-[0-9a-z._-]*[0-9a-z](?=\.gz|/)", name)
    sections = {".rodata": b"\0" + make.BANNER.replace("6.1.0-1-test", release).encode() + b"\0"}
    content = make.elf({**sections, ".notes": make.build_id_note(), ".BTF": make.btf()})
    content = make.PACKERS["gz"](content) if name.endswith(".gz") else content
    package = make.rpm({"./boot": None, "./boot/.vmlinuz.hmac": b"x", name: content, "./z": bytes(99)}, compression)
    kernel = read(tmp_path / "kernel.rpm", package)
    assert (kernel.build_id, kernel.btf, kernel.file) == (make.BUILD_ID, make.btf(), "kernel.rpm")


def test_rpm_with_zstd_in_several_frames(tmp_path: Path) -> None:
    package = make.rpm({"./lib/modules/6.1/vmlinuz": make.elf()}, "")
    at = package.index(b"070701")
    middle = (at + len(package)) // 2
    packed = package[:at] + zstd.compress(package[at:middle]) + zstd.compress(package[middle:])
    assert read(tmp_path / "kernel.rpm", packed).build_id == make.BUILD_ID


def test_rpm_made_by_rpmbuild(tmp_path: Path) -> None:
    if shutil.which("rpmbuild") is None:
        pytest.skip("rpmbuild is not installed")
    (tmp_path / "vmlinuz").write_bytes(make.bzimage(lzma.compress(make.elf())))
    spec = tmp_path / "kernel.spec"
    for number, payload in enumerate(("w19.zstdio", "w2.xzdio", "w9.gzdio", "w.ufdio")):
        spec.write_text(
            f"Name: kernel-core\nVersion: 6.1.{number}\nRelease: 1\nSummary: s\nLicense: GPL\nBuildArch: noarch\n"
            f"%define _binary_payload {payload}\n%description\nd\n%install\nmkdir -p %buildroot/lib/modules/6.1 "
            f"%buildroot/boot\ncp {tmp_path}/vmlinuz %buildroot/lib/modules/6.1/vmlinuz\n"
            "head -c 3000000 /dev/urandom > %buildroot/boot/System.map-6.1\n"
            "%files\n/lib/modules/6.1\n/boot/System.map-6.1\n"
        )
        command = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}", str(spec)]
        subprocess.run(command, check=True, capture_output=True)
        (built,) = tmp_path.glob(f"RPMS/*/kernel-core-6.1.{number}-1.*.rpm")
        with open_source(built) as kernel:
            assert (kernel.build_id, kernel.btf) == (make.BUILD_ID, make.btf())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make.rpm({"./boot/vmlinuz-6.1": make.elf()})[:120], "no header|ends too early"),
        (make.rpm({"./boot/vmlinuz-6.1": make.elf()})[:-200], "they end too early"),
        (make.rpm({"./boot/vmlinuz-6.1": make.elf()}, "")[:900], "it ends too early|ends within a file|damaged"),
        (make.rpm({}), "package has no kernel in it"),
        (make.rpm({"./boot/x": b"x"}, "").replace(b"070701", b"07070X", 1), "unknown kind: cpio header b'07070X'"),
        (make.rpm({"./boot/x": b"x"}, "").replace(b"070701000", b"0707010zz", 1), "cpio header without numbers"),
        (b"\xed\xab\xee\xdb" + bytes(40), "no RPM package"),
        (b"\xed\xab\xee\xdb" + bytes(400), "no header where one must be"),
    ],
)
def test_damaged_rpm(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "kernel.rpm", content)


def test_every_truncated_rpm_is_an_error(tmp_path: Path) -> None:
    package = make.rpm({"./boot/config": bytes(100), "./boot/vmlinuz-6.1": make.elf()}, "")
    for size in range(0, package.rindex(b"070701") - 4, 41):
        with pytest.raises(SourceError):
            read(tmp_path / "kernel.rpm", package[:size])


def other_elf(byte: str) -> bytes:
    return make.elf({".rodata": make.BANNERS, ".notes": make.build_id_note(build_id=byte * 20), ".BTF": make.btf()})


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/vmlinux-6.1").write_bytes(other_elf("aa"))
    (tmp_path / "b.deb").write_bytes(make.deb({"./boot/vmlinuz-6.1": other_elf("bb")}))
    (tmp_path / "c.rpm").write_bytes(make.rpm({"./boot/vmlinuz-6.1": other_elf("cc")}))
    (tmp_path / "notes.txt").write_text("no kernel")
    assert names(tmp_path) == ["aa" * 20, "bb" * 20, "cc" * 20]
    with open_source(tmp_path) as first:
        assert first.build_id == "aa" * 20


def test_directory_without_kernels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no kernel, package or BTF file in this directory"):
        names(tmp_path)


MANY = {
    "x/vmlinux": other_elf("aa"),
    "README": b"no kernel",
    "debs/k.deb": make.deb({"./boot/vmlinuz-6.1": other_elf("bb")}),
}


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2", ""])
def test_tar_of_sources(tmp_path: Path, compression: str) -> None:
    (tmp_path / "k.tar").write_bytes(make.PACKERS[compression](make.tar(MANY)))
    assert names(tmp_path / "k.tar") == ["aa" * 20, "bb" * 20]


def test_zip_of_sources(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "k.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MANY.items():
            archive.writestr(name, content)
    assert names(tmp_path / "k.zip") == ["aa" * 20, "bb" * 20]
    whole = (tmp_path / "k.zip").read_bytes()
    at = whole.index(b"vmlinux") + 60
    (tmp_path / "k.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    with pytest.raises(SockpidError, match="damaged"):
        names(tmp_path / "k.zip")


def test_btf_in_an_archive(tmp_path: Path) -> None:
    """As BTFHub has them: one file of bare BTF, which does not say whose it is."""
    archive = lzma.compress(make.tar({"4.18.0-147.5.1.el8_1.aarch64.btf": make.btf()}))
    kernel = read(tmp_path / "4.18.0-147.5.1.el8_1.aarch64.btf.tar.xz", archive, GIVEN)
    assert (kernel.btf, kernel.release, kernel.arch.name) == (make.btf(), "6.1.0-1-test", "aarch64")


def test_archives_in_archives_end_somewhere(tmp_path: Path) -> None:
    content = make.tar({"vmlinux": make.elf()})
    for _ in range(3):
        content = make.tar({"x.btf.tar.xz": content})
    with pytest.raises(SourceError, match="package has no kernel in it"):
        read(tmp_path / "k.tar", content)


def test_other_wrappings(tmp_path: Path) -> None:
    bzimage = make.bzimage(lzma.compress(make.elf()))
    for content in (
        make.uimage(bzimage, 24),
        make.uimage(make.PACKERS["gz"](make.arm64_image()), 22),
        make.unified(bzimage),
    ):
        assert read(tmp_path / "kernel", content).build_id == make.BUILD_ID
    assert read(tmp_path / "uImage", make.uimage(make.PACKERS["gz"](make.raw()))).arch.name == "arm"
    for content in (
        make.uimage(bzimage, 24)[:90],
        make.uimage(b"")[:20],
        make.unified(bzimage)[:0x60],
        b"MZ" + bytes(70),
    ):
        with pytest.raises(SourceError):
            read(tmp_path / "kernel", content)


def test_an_image_that_says_it_is_in_itself(tmp_path: Path) -> None:
    image = make.unified(bytes(0x800))
    itself = image.replace(struct.pack("<II", 0x800, 0x400), struct.pack("<II", 0x800, 0))
    assert itself != image
    with pytest.raises(SourceError, match="layers around a kernel"):
        read(tmp_path / "kernel", itself)
    nested = make.elf()
    for _ in range(3):
        nested = make.unified(nested)
    assert read(tmp_path / "kernel", nested).build_id == make.BUILD_ID


def test_a_package_is_read_no_further_than_its_kernel(tmp_path: Path) -> None:
    after = {f"./lib/modules/{i}.ko": bytes(1 << 16) for i in range(100)}
    package = make.deb({"./boot/vmlinuz-6.1": make.elf(), **after}, "")
    path = tmp_path / "k.deb"
    path.write_bytes(package)
    counts: List[int] = []
    with open_source(path, tick=counts.append):
        assert sum(counts) < len(package) / 2


def test_metapackage(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="may only depend on the one that has"):
        read(tmp_path / "k.deb", make.deb({"./usr/share/doc/linux-image-amd64/copyright": b"x"}))


def test_signed_and_unsigned_are_the_same_kernel(tmp_path: Path) -> None:
    unsigned = make.bzimage(lzma.compress(make.elf()))
    one = read(tmp_path / "unsigned.deb", make.deb({"./boot/vmlinuz-6.1": unsigned}))
    other = read(tmp_path / "signed.deb", make.deb({"./boot/vmlinuz-6.1": unsigned + b"signature" * 100}))
    assert one.build_id == other.build_id
    assert one.sha256 != other.sha256


def test_stubs_and_salts_say_nothing(tmp_path: Path) -> None:
    """/boot/System.map of Debian is a stub, and the build salt (a note of Linux) is not the release."""
    salt = b"\x06\0\0\0\x0f\0\0\0\0\1\0\0Linux\0\0\0" + b"6.1.0-9-other\0\0\0"
    elf = make.elf({".notes": salt + make.build_id_note(), ".rodata": make.BANNERS, ".BTF": make.btf()})
    files: Dict[str, Optional[bytes]] = {
        "./boot/System.map-6.1": b"ffffffffffffffff B The real System.map",
        "./boot/vmlinuz-6.1": elf,
    }
    kernel = read(tmp_path / "k.deb", make.deb(files))
    assert (kernel.release, kernel.build_id) == ("6.1.0-1-test", make.BUILD_ID)


def test_no_build_id(tmp_path: Path) -> None:
    elf = make.elf({".rodata": make.BANNERS, ".BTF": make.btf()})
    assert read(tmp_path / "k.deb", make.deb({"./boot/vmlinuz-6.1": elf})).build_id is None


def peak_of(call: str) -> int:
    """Peak memory, in MiB, of a process that makes a call which must raise SourceError.

    From /proc, since ru_maxrss would count the memory of the process that started it (exec_mmap() in fs/exec.c).
    """
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom sockpid.errors import SourceError\n"
        "from sockpid_gen.files import package, decompress; from sockpid_gen.kernel import source\n"
        "package.TOTAL_MAX = 150 << 20\npackage.FILE_MAX = 50 << 20\n"
        f"try:\n    {call}\nexcept SourceError:\n    pass\nelse:\n    sys.exit('no error')\n"
        "print(int(re.search('VmHWM: *\\t*([0-9 ]+) kB', open('/proc/self/status').read())[1]) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": "gen:runtime"}
    )
    return int(done.stdout)


def bomb(path: Path, size: int, packer: str) -> None:
    """A tar file with one kernel of zero bytes."""
    info = tarfile.TarInfo("./boot/vmlinuz-6.1")
    info.size = size
    with path.open("wb") as file:
        compressor = lzma.LZMACompressor(preset=0) if packer == "xz" else zstd.ZstdCompressor(level=1)
        file.write(compressor.compress(info.tobuf()))
        for _ in range(size >> 20):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.flush())


@pytest.mark.parametrize("packer", ["xz", "zst"])
def test_bombs_in_packages(tmp_path: Path, packer: str) -> None:
    bomb(tmp_path / "data", 200 << 20, packer)
    deb = tmp_path / "k.deb"
    deb.write_bytes(make.ar({"debian-binary": b"2.0\n", f"data.tar.{packer}": (tmp_path / "data").read_bytes()}))
    assert deb.stat().st_size < 1 << 20
    assert peak_of(f"next(source.each_source(Path({str(deb)!r})))") < 120


def test_bombs_among_other_files(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=0) as tar, open("/dev/zero", "rb") as zeros:
        info = tarfile.TarInfo("./usr/share/doc/zeros")
        info.size = 200 << 20
        tar.addfile(info, zeros)
    path = tmp_path / "k.tar.xz"
    path.write_bytes(content.getvalue())
    assert peak_of(f"next(source.each_source(Path({str(path)!r})))") < 120


def test_bombs_in_kernel_images(tmp_path: Path) -> None:
    limit = 8 << 20
    for pack in (make.PACKERS["xz"], make.PACKERS["gz"], make.PACKERS["bz2"], zstd.compress):
        with pytest.raises(SourceError, match="more than 8 MiB"):
            decompress.decompress(pack(bytes(limit + 1)), limit)
        assert len(decompress.decompress(pack(bytes(limit)), limit)) == limit


def test_a_dictionary_of_any_size() -> None:
    packed = bytearray(lzma.compress(b"x" * 100, lzma.FORMAT_ALONE))
    packed[1:5] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(SourceError, match="Memory usage limit exceeded"):
        decompress.decompress(bytes(packed))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_tar_headers_of_any_size(kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 30
    file = io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(SourceError, match="a file name of 1073741824 bytes"):
        list(package.files(file, "tar"))


def test_window_and_copy() -> None:
    file = io.BytesIO(b"0123456789")
    window = stream.Window(file, 4)
    assert (window.read(3), window.read(), window.read()) == (b"012", b"3", b"")
    with pytest.raises(SourceError, match="too large for a kernel"):
        stream.copy(file, io.BytesIO(), 5)
    with pytest.raises(SourceError, match="ends within a file"):
        stream.Window(io.BytesIO(b"x"), 2).skip()


def test_kernels_without_types_can_be_found_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.elf({".rodata": make.BANNERS, ".notes": make.build_id_note()}))
    with pytest.raises(NoTypesError), open_source(path, finders=("standard",)):
        pass
    with pytest.raises(SockpidError, match="drgn here only knows"), open_source(path, finders=("elsewhere",)):
        pass
