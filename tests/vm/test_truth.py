"""The same kernel, described twice by its distribution: BTF in the image package, DWARF in the debug package.

No field may differ between sockpid's BTF reader, drgn on BTF and drgn on DWARF. (About 300 MB to download, once.)
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from sockpid.btf.btf import Btf
from sockpid.table.layout import Enum, Struct
from sockpid_gen.btf import finder
from sockpid_gen.extraction import drgn_layout
from sockpid_gen.extraction.difference import compare
from sockpid_gen.extraction.entry import entry_of
from sockpid_gen.extraction.extraction import extract
from sockpid_gen.kernel.source import KernelSource, open_source
from sockpid_gen.verify import verify
from tests.kernel_wanted import wanted

from . import catalogue, packages, unpack
from .kernels import Kernel

pytestmark = [pytest.mark.vm, pytest.mark.download]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    try:
        return catalogue.find("6.1/amd64")
    except packages.PackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def image(kernel: Kernel) -> Iterator[KernelSource]:
    with open_source(kernel.deb()) as source:
        yield source


@pytest.fixture(scope="module")
def debug_package(kernel: Kernel) -> Path:
    try:
        return packages.fetch(f"linux-image-{kernel.package.release}-dbg", kernel.suite, kernel.arch)
    except packages.PackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def debug(debug_package: Path) -> Iterator[KernelSource]:
    with open_source(debug_package) as source:
        yield source


def test_both_packages_are_the_same_kernel(image: KernelSource, debug: KernelSource) -> None:
    assert image.build_id is not None
    assert (image.arch, image.release, image.banner, image.build_id) == (
        debug.arch,
        debug.release,
        debug.banner,
        debug.build_id,
    )
    assert (image.distribution, image.dwarf) == ("debian", None)
    assert debug.dwarf is not None


def test_btf_and_dwarf_agree_in_every_field(image: KernelSource, debug: KernelSource) -> None:
    assert image.btf is not None
    fields = wanted(image.arch)
    dwarf = extract(debug._replace(btf=None), fields)
    assert dwarf.kind == "dwarf"
    btf = Btf(bytes(image.btf))
    by_sockpid = btf.extract(fields, image.arch.pointer_size)
    by_drgn = drgn_layout.extract(finder.BtfTypes(btf.data, image.arch).prog, fields)
    assert compare(by_sockpid, dwarf.layout) == []
    assert compare(by_drgn, dwarf.layout) == []
    rows = [row for row in dwarf.layout.values() if row is not None]
    found = [v for row in rows for v in (row.fields if isinstance(row, Struct) else row.values).values()]
    assert any(isinstance(row, Enum) for row in rows)
    assert sum(value is not None for value in found) > 70


def test_a_debug_package_makes_the_same_entry(image: KernelSource, debug: KernelSource) -> None:
    fields = wanted(image.arch)
    assert extract(debug, fields)._replace(tools={}) == extract(image, fields)._replace(tools={})


def test_image_debug_package_and_table_are_verified_together(image: KernelSource, debug_package: Path) -> None:
    entry = entry_of(image, extract(image, wanted(image.arch)))
    verdict = verify.verify_dwarf(entry, debug_package)
    assert (verdict.disagreements, verdict.independent) == ((), True)
    assert verdict.fields > 100


def test_an_rpm_of_the_same_kernel_says_the_same(kernel: Kernel, image: KernelSource, tmp_path: Path) -> None:
    """The real vmlinuz, packed as Fedora packs it: by rpmbuild, in /lib/modules, with zstd."""
    if shutil.which("rpmbuild") is None:
        pytest.skip("rpmbuild is not installed")
    vmlinuz = tmp_path / "vmlinuz"
    ((_, entry),) = unpack.members(kernel.deb(), r"boot/vmlinuz-.*")
    vmlinuz.write_bytes(entry.content)
    inside = f"/lib/modules/{image.release}/vmlinuz"
    spec = tmp_path / "kernel-core.spec"
    spec.write_text(
        "Name: kernel-core\nVersion: 6.1\nRelease: 1\nSummary: s\nLicense: GPL\nBuildArch: noarch\n"
        "%define _binary_payload w3.zstdio\n%description\nd\n%install\n"
        f"install -D {vmlinuz} %buildroot{inside}\n%files\n{inside}\n"
    )
    command = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}", str(spec)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = tmp_path.glob("RPMS/*/*.rpm")
    with open_source(built) as packed:
        assert packed._replace(file=image.file, sha256=image.sha256) == image
