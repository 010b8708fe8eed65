"""Files out of Debian packages, as entries of an initramfs."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from .newc import FILE, PROGRAM, SYMLINK, Entry
from .packages import PackageError


def members(deb: Path, wanted: str) -> Iterator[tuple[str, Entry]]:
    """The files of `deb` whose whole path (no leading slash) matches the pattern `wanted`. No file: PackageError.

    Paths are those of a merged /usr: a file that a package puts into /bin or /lib comes out in /usr/bin or /usr/lib.
    """
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True)
    found = False
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if not re.fullmatch(wanted, path):
                continue
            merged = re.sub(r"^(?=(bin|sbin|lib|lib64)/)", "usr/", path)
            if member.issym():
                found = True
                yield merged, Entry(SYMLINK, re.sub(r"^/(?=(lib|lib64)/)", "/usr/", member.linkname).encode())
            elif content := archive.extractfile(member):
                found = True
                yield merged, Entry(PROGRAM if member.mode & 0o100 else FILE, content.read())
    if not found:
        raise PackageError(f"{deb.name} has no file {wanted}")
