"""Where a kernel's description comes from: a package, vmlinux, bootable image or BTF file, or the running kernel.

Whatever it is, the identity (architecture, release, banner, build-id) is taken from the kernel itself, never from a
file name. Only bare BTF has no identity; there it has to be given.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import IO, BinaryIO, Generator, NamedTuple, Optional, Sequence, Tuple, Union

from sockpid import elf_notes
from sockpid.arch import Arch, of_machine
from sockpid.errors import NoTypesError, SourceError, UsageError
from sockpid_gen.dwarf import debuginfo
from sockpid_gen.files.sections import ELF_MAGIC
from sockpid_gen.files.stream import Tick, copy, sha256_of

from . import vmlinux

LIVE = Path("/sys/kernel/btf/vmlinux")
_BTF_MAGICS = (b"\x9f\xeb\x01", b"\xeb\x9f\x01")

_PACKAGES = ("deb", "rpm")
_PATH = re.compile(r"/(?:lib/modules/|boot/[A-Za-z]+-)([0-9]+\.[0-9][^/]*)")
"""Where the path of a kernel in a package has the release."""
_NESTED_MAX = 2
"""How many archives may be around a package or archive."""


class Given(NamedTuple):
    """Parts of the identity given by the user, for sources that lack them. arch is as `uname -m` says it."""

    arch: Optional[str] = None
    release: Optional[str] = None
    banner: Optional[str] = None
    build_id: Optional[str] = None
    distribution: Optional[str] = None


NOTHING_GIVEN = Given()


class KernelSource(NamedTuple):
    """One kernel, opened. file: name without directory; sha256: of that file. dwarf: an ELF file with DWARF.

    debug: name of the file that the DWARF is from, if it was found elsewhere by the kernel's build-id.
    """

    arch: Arch
    release: str
    banner: str
    build_id: Optional[str]
    distribution: Optional[str]
    btf: Union[bytes, memoryview, None]
    dwarf: Optional[IO[bytes]]
    file: str
    sha256: str
    debug: Optional[str] = None


@contextlib.contextmanager
def open_source(
    path: Path,
    given: Given = NOTHING_GIVEN,
    tick: Tick = lambda _: None,
    finders: Sequence[str] = (),
    sha256: Optional[str] = None,
) -> Generator[KernelSource, None, None]:
    """Opens the kernel that `path` holds, of several the first; files made on the way are gone when the context ends.

    `tick` is called with numbers of bytes read, to show progress. finders: where to look for the DWARF of a kernel that
    has no description of its own (debuginfo.FINDERS). sha256: of the file, if it is known; else the file is read once
    more for it. Raises SourceError if it cannot be read, NoTypesError if there is neither BTF nor DWARF, UsageError if
    `given` is incomplete or contradicts it, UnsupportedArchError.
    """
    kernels = each_source(path, given, tick, finders, sha256)
    try:
        yield next(kernels)
    finally:
        kernels.close()


def each_source(
    path: Path,
    given: Given = NOTHING_GIVEN,
    tick: Tick = lambda _: None,
    finders: Sequence[str] = (),
    sha256: Optional[str] = None,
) -> Generator[KernelSource, None, None]:
    """Every kernel in a directory or archive, or the one in a package or file; as open_source.

    Each is open until the next is asked for.
    """
    if path.is_dir():
        from sockpid_gen.files import package

        paths = sorted(file for file in path.rglob("*") if package.SOURCE.fullmatch(file.name) and file.is_file())
        if not paths:
            raise SourceError(f"{path}: no kernel, package or BTF file in this directory")
        for inner in paths:
            yield from each_source(inner, given, tick, finders)
        return
    with contextlib.ExitStack() as stack:
        try:
            outer = stack.enter_context(path.open("rb"))
            for facts, file in _kernels(path, outer, given, tick):
                with contextlib.ExitStack() as opened:
                    dwarf, debug = file if facts.dwarf else None, None
                    if facts.btf is None and dwarf is None and facts.build_id and finders:
                        dwarf = debuginfo.find(facts.build_id, facts.arch, finders)
                        if dwarf is not None:
                            opened.enter_context(dwarf)
                            debug = os.path.basename(dwarf.name)
                    # Of a package, only after its kernel was read: what is no package or damaged ends sooner.
                    if sha256 is None:
                        with path.open("rb") as whole:
                            sha256 = sha256_of(whole)
                    yield _identified(path, facts, dwarf, given, sha256)._replace(debug=debug)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from None
        except SourceError as error:
            raise type(error)(f"{path}: {error}") from None


def _kernels(
    path: Path, file: BinaryIO, given: Given, tick: Tick, nested: int = _NESTED_MAX
) -> Generator[Tuple[vmlinux.Facts, BinaryIO], None, None]:
    """`file` itself or, if it is a package or archive, each kernel in it; of a package the first.

    The file is at hand where the kernel has DWARF.
    """
    if file.read(len(ELF_MAGIC)) == ELF_MAGIC:
        file.seek(0)
        yield _facts(path, file, given), file
        return
    import tempfile

    from sockpid_gen.files import package

    from . import front

    what = package.kind(file)
    if what is None:
        yield _facts(path, file, given), file
        return
    inside = package.kernel(file, what, tick) if what in _PACKAGES else package.sources(file, what, tick, nested > 0)
    found = False
    for name, content in inside:
        stream = front.buffered(content)
        if what in _PACKAGES and not stream.peek(len(ELF_MAGIC)).startswith(ELF_MAGIC):
            facts = front.read(stream)
            if facts is not None:
                _demand_release(name, facts)
                yield facts, file
                return
            file.seek(0)
            again = package.kernel(file, what)
            stream = front.buffered(next(again)[1])
        with tempfile.TemporaryFile(prefix="sockpid-gen.") as kernel:
            copy(stream, kernel, package.FILE_MAX)
            found = True
            if what in _PACKAGES:
                facts = _facts(path, kernel, given)
                _demand_release(name, facts)
                yield facts, kernel
                return
            yield from _kernels(path, kernel, given, lambda _: None, nested - 1)
    if not found:
        raise SourceError(
            "package has no kernel in it (Debian's linux-image-* packages may only depend on the one that has: "
            "linux-image-RELEASE-unsigned or linux-binary-RELEASE)"
        )


def _demand_release(name: str, facts: vmlinux.Facts) -> None:
    """Raises SourceError if a package calls its kernel by another release than the kernel calls itself.

    One of the two may say less than the other: "6.1", or have the name of a compression behind it.
    """
    match = _PATH.search("/" + name)
    if match is None or facts.banner is None:
        return
    shorter, longer = sorted((match.group(1), vmlinux.release_of(facts.banner)), key=len)
    if not longer.startswith(shorter) or longer[len(shorter) :][:1].isalnum():
        raise SourceError(f"package contradicts itself: the kernel in {name} says that it is {facts.banner}")


def _facts(path: Path, file: BinaryIO, given: Given) -> vmlinux.Facts:
    start = file.read(8)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if start.startswith(ELF_MAGIC):
        return vmlinux.read_elf(file)
    from sockpid_gen.files.decompress import KERNEL_MAX

    from .vmlinuz import Kernel, unpack

    if size > KERNEL_MAX:
        raise SourceError(f"no kernel has {size >> 20} MiB")
    if start.startswith(_BTF_MAGICS):
        return _bare_btf(path, file.read(), given)
    kernel: Kernel = unpack(file.read())
    if kernel.arch is not None:
        return vmlinux.read_raw(kernel.data, kernel.arch)
    return vmlinux.read_elf(io.BytesIO(kernel.data))._replace(dwarf=False)


def _bare_btf(path: Path, data: bytes, given: Given) -> vmlinux.Facts:
    """Bare BTF: its identity is given, or that of the running kernel if it is the running kernel's."""
    if path.resolve() == LIVE:
        arch = of_machine(os.uname().machine)
        banner = Path("/proc/version").read_text(encoding="utf-8", errors="replace").rstrip()
        build_id = elf_notes.build_id(Path("/sys/kernel/notes").read_bytes(), arch.byte_order)
        return vmlinux.Facts(arch, banner, build_id, data, False)
    missing = [f"--{name}" for name, value in (("arch", given.arch), ("banner", given.banner)) if value is None]
    if given.arch is None or given.banner is None:
        raise UsageError(
            f"{path} is bare BTF, which does not say what kernel it describes: also give {' and '.join(missing)}"
            + ("" if given.build_id else " (and --build-id, if the kernel has one)")
        )
    return vmlinux.Facts(of_machine(given.arch), given.banner, given.build_id, data, False)


def _identified(
    path: Path, facts: vmlinux.Facts, dwarf: Optional[IO[bytes]], given: Given, sha256: str
) -> KernelSource:
    banner = facts.banner or given.banner
    if given.banner is not None and not vmlinux.is_banner(given.banner):
        raise UsageError(f"--banner {given.banner!r} is not what /proc/version says: 'Linux version RELEASE ... #...'")
    if given.build_id is not None and not re.fullmatch("([0-9a-f]{2})+", given.build_id):
        raise UsageError(f"--build-id {given.build_id!r} is none: bytes in lower-case hex")
    if banner is None:
        raise SourceError("no version banner in it; is it a kernel?")
    banner = banner.rstrip()
    release = vmlinux.release_of(banner)
    if facts.btf is None and dwarf is None:
        raise NoTypesError(
            f"Linux {release} for {facts.arch.name} has neither BTF nor DWARF in it; "
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
