"""Pins on a bpf file system: makes them, and opens what is pinned if it is what is wanted there.

A pin is a name, and anybody who may write to the directory can have put something else there: so the sizes of keys and
values are looked at, and before the type, whether it is a map at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct

from sockpid import syscall, uapi
from sockpid.bpf.map import Map, percpu_size
from sockpid.errors import PinError, SockpidError, SyscallError
from sockpid.host import kernel
from sockpid.image import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional

ABI = 2
"""SOCKPID_ABI of bpf_bytecode/sockpid.h: the version of keys and values."""
OWN = "own"
"""Directory beside that of the version, for what is nobody else's."""


def open_pinned(path: str, key_size: int, value_size: int) -> Map:
    """A pinned map, for reading. Raises PinError if there is none or its keys and values have other sizes (in bytes).

    Reading needs read permission on the pin alone, where the kernel can tell.
    Linux kernel commit 6e71b04a8224 ("bpf: Add file mode configuration into bpf maps") (in v4.15)
    """
    return open_map(path, key_size, value_size, uapi.BPF_F_RDONLY)


def open_for_update(path: str, key_size: int, value_size: int, kind: str) -> Map:
    """A pinned map, to go on with. Raises PinError as open_pinned(), and if it is of another type."""
    opened = open_map(path, key_size, value_size, 0)
    if opened.spec.type != kind:
        opened.close()
        raise PinError(f"{path} is a {opened.spec.type}, not a {kind}")
    if kind == "BPF_MAP_TYPE_PERCPU_ARRAY":
        opened.value_size = percpu_size(value_size)
    return opened


def open_map(path: str, key_size: int, value_size: int, flags: int) -> Map:
    """As open_pinned(). flags: of BPF_OBJ_GET; what a kernel does not know of them is left out."""
    opened = open_any(path, flags)
    found = opened.spec
    if (found.key_size, found.value_size) != (key_size, value_size):
        opened.close()
        raise PinError(
            f"{path} has keys of {found.key_size} and values of {found.value_size} bytes, not {key_size} and "
            f"{value_size}: it is not a map of this version (v{ABI}) of sockpid"
        )
    return opened


def open_any(path: str, flags: int = 0) -> Map:
    """A pinned map, whatever the sizes of its keys and values. Raises PinError if there is none."""
    name = bytearray(os.fsencode(path) + b"\0")
    try:
        try:
            fd = _obj_get(name, flags)
        except SyscallError as error:
            if error.errno != errno.EINVAL or not flags:
                raise
            fd = _obj_get(name, 0)
    except SyscallError as error:
        raise refused(f"open {path}", error) from None
    try:
        found = _spec(fd, os.path.basename(path))
    except BaseException:
        os.close(fd)
        raise
    return Map(found, fd, found.value_size)


def _obj_get(name: bytearray, flags: int) -> int:
    attr = struct.pack("=QII", syscall.address(name), 0, flags)
    return syscall.bpf("BPF_OBJ_GET", uapi.BPF_OBJ_GET, bytearray(attr))


def _spec(fd: int, name: str) -> image.Map:
    """What kind of map a descriptor is of. Not every object that can be pinned is a map: /proc knows."""
    fields: Dict[str, str] = {}
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    if "map_type" not in fields:
        raise PinError(f"what is pinned as {name} is not a map")
    types = {value: key for key, value in vars(uapi).items() if key.startswith("BPF_MAP_TYPE_")}
    number = int(fields["map_type"])
    sizes = (int(fields[key]) for key in ("key_size", "value_size", "max_entries"))
    return image.Map(name, types.get(number, f"type {number}"), *sizes)


def refused(attempted: str, error: OSError) -> SockpidError:
    """The error to raise for what the kernel refused: CapabilityError if a capability is missing, else PinError."""
    missing: Optional[SockpidError] = None
    if error.errno in (errno.EPERM, errno.EACCES):
        missing = kernel.missing_capability(attempted)
    return missing or PinError(f"{attempted}: {error.strerror}")


def pin_fd(fd: int, path: str) -> None:
    """Pins a map, program or link with mode 0600, in the place of what was there. Raises PinError, CapabilityError."""
    try:
        fresh = path + "_new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        name = bytearray(os.fsencode(fresh) + b"\0")
        syscall.bpf("BPF_OBJ_PIN", uapi.BPF_OBJ_PIN, bytearray(struct.pack("=QII", syscall.address(name), fd, 0)))
        os.chmod(fresh, 0o600)
        os.rename(fresh, path)
    except OSError as error:
        raise refused(f"pin {path}", error) from None
