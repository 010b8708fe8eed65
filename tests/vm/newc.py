"""Write initramfs archives: the "newc" cpio format (Documentation/driver-api/early-userspace/buffer-format.rst).

The output depends on the entries alone: sorted, no times, no owners.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import NamedTuple

DIRECTORY = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755
FILE = stat.S_IFREG | 0o644
SYMLINK = stat.S_IFLNK | 0o777


class Entry(NamedTuple):
    """mode: type and permissions, as in struct stat. content: a file's bytes, a symbolic link's target."""

    mode: int
    content: bytes = b""

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The archive of `entries`, by path in the guest. Parent directories come by themselves.

    The kernel unpacks one archive after another, so archives can be joined; a later entry replaces an earlier one.
    """
    tree = {path.strip("/"): entry for path, entry in entries.items()}
    for path in list(tree):
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            tree.setdefault(parent, Entry(DIRECTORY))
    # The order of sorting puts a directory before what it holds; the kernel needs that.
    members = [*sorted(tree.items()), ("TRAILER!!!", Entry(0))]
    return b"".join(_member(inode, path, entry) for inode, (path, entry) in enumerate(members, start=1))


def _member(inode: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (two fields), device of a node (two), size of the name, checksum
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
