"""Where a kernel's description comes from: a package, vmlinux, bootable image or BTF file, or the running kernel.

Whatever it is, the identity (architecture, release, banner, build-id) is taken from the kernel itself, never from a
file name. Only bare BTF has no identity; there it has to be given.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import IO, Generator, NamedTuple, Optional

from sockpid import notes
from sockpid.arch import Arch, of_machine
from sockpid.errors import NoTypesError, SourceError, UsageError

from . import deb, vmlinux
from .deb import Tick
from .vmlinuz import ELF_MAGIC, Kernel, unpack

LIVE = Path("/sys/kernel/btf/vmlinux")
_BTF_MAGICS = (b"\x9f\xeb\x01", b"\xeb\x9f\x01")


class Given(NamedTuple):
    """Parts of the identity given by the user, for sources that lack them. arch is as `uname -m` says it."""

    arch: Optional[str] = None
    release: Optional[str] = None
    banner: Optional[str] = None
    build_id: Optional[str] = None
    distribution: Optional[str] = None


NOTHING_GIVEN = Given()


class KernelSource(NamedTuple):
    """One kernel, opened. file: name without directory; sha256: of that file. dwarf: an ELF file with DWARF."""

    arch: Arch
    release: str
    banner: str
    build_id: Optional[str]
    distribution: Optional[str]
    btf: Optional[bytes]
    dwarf: Optional[IO[bytes]]
    file: str
    sha256: str


@contextlib.contextmanager
def open_source(
    path: Path, given: Given = NOTHING_GIVEN, tick: Tick = lambda _: None
) -> Generator[KernelSource, None, None]:
    """Opens the kernel that `path` holds; files made on the way are gone when the context ends.

    `tick` is called with numbers of bytes read, to show progress. Raises SourceError if it cannot be read or
    has neither BTF nor DWARF, UsageError if `given` is incomplete or contradicts it, UnsupportedArchError.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            start = file.read(8)
            file.seek(0)
            if start.startswith(_BTF_MAGICS):
                facts, dwarf = _bare_btf(path, file.read(), given), None
            else:
                if start == deb.AR_MAGIC:
                    kernel: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(prefix="sockpid-gen."))
                    deb.copy_kernel(file, kernel, tick)
                    start = kernel.read(8)
                    kernel.seek(0)
                else:
                    kernel = file
                facts = _kernel_facts(kernel, start)
                dwarf = kernel if facts.dwarf else None
            sha256 = _sha256(file)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from None
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from None
        yield _identified(path, facts, dwarf, given, sha256)


def _kernel_facts(file: IO[bytes], start: bytes) -> vmlinux.Facts:
    if start.startswith(ELF_MAGIC):
        return vmlinux.read_elf(file)
    kernel: Kernel = unpack(file.read())
    if kernel.arch is not None:
        return vmlinux.read_raw(kernel.data, kernel.arch)
    return vmlinux.read_elf(io.BytesIO(kernel.data))._replace(dwarf=False)


def _bare_btf(path: Path, data: bytes, given: Given) -> vmlinux.Facts:
    """Bare BTF: its identity is given, or that of the running kernel if it is the running kernel's."""
    if path.resolve() == LIVE:
        arch = of_machine(os.uname().machine)
        banner = Path("/proc/version").read_text(encoding="utf-8", errors="replace").rstrip()
        build_id = notes.build_id(Path("/sys/kernel/notes").read_bytes(), arch.byte_order)
        return vmlinux.Facts(arch, banner, build_id, data, False)
    missing = [f"--{name}" for name, value in (("arch", given.arch), ("banner", given.banner)) if value is None]
    if given.arch is None or given.banner is None:
        raise UsageError(
            f"{path} is bare BTF, which does not say what kernel it describes: also give {' and '.join(missing)}"
            + ("" if given.build_id else " (and --build-id, if the kernel has one)")
        )
    if not vmlinux.is_banner(given.banner):
        raise UsageError(f"--banner {given.banner!r} is not what /proc/version says: 'Linux version RELEASE ... #...'")
    return vmlinux.Facts(of_machine(given.arch), given.banner, given.build_id, data, False)


def _identified(
    path: Path, facts: vmlinux.Facts, dwarf: Optional[IO[bytes]], given: Given, sha256: str
) -> KernelSource:
    banner = facts.banner or given.banner
    if banner is None:
        raise SourceError(f"{path}: no version banner in it; is it a kernel?")
    banner = banner.rstrip()
    release = vmlinux.release_of(banner)
    if facts.btf is None and dwarf is None:
        raise NoTypesError(
            f"{path}: Linux {release} for {facts.arch.name} has neither BTF nor DWARF in it; "
            "give its debug package (Debian: linux-image-RELEASE-dbg) instead"
        )
    found = {"arch": facts.arch.name, "release": release, "banner": banner, "build_id": facts.build_id}
    wishes = {
        "arch": of_machine(given.arch).name if given.arch else None,
        "release": given.release,
        "banner": given.banner.rstrip() if given.banner else None,
        "build_id": given.build_id,
    }
    for name, wish in wishes.items():
        if None not in (wish, found[name]) and wish != found[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{path}: {option} {wish} contradicts the kernel itself: {found[name]}")
    return KernelSource(
        facts.arch,
        release,
        banner,
        facts.build_id or given.build_id,
        given.distribution or vmlinux.distribution_of(banner),
        facts.btf,
        dwarf,
        path.name,
        sha256,
    )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()
