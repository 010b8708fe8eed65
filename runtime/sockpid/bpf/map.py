"""BPF maps: one class, one descriptor."""

from __future__ import annotations

import errno
import os
import struct

from sockpid import syscall, uapi
from sockpid.errors import ProgError, SyscallError
from sockpid.host import kernel
from sockpid.image import image

from . import memlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, List, Optional

LOCAL_FREE_TARGET = 128  # kernel/bpf/bpf_lru_list.c


class Map:
    """A BPF map. Keys and values are bytes in the machine's byte order; per-CPU maps give all CPUs' values in a row."""

    def __init__(self, spec: image.Map, fd: int, value_size: int) -> None:
        self.spec = spec
        self.fd = fd
        self.value_size = value_size

    @classmethod
    def create(cls, spec: image.Map, named: bool = False) -> Map:
        """Creates the map. Raises CapabilityError, and SyscallError for any other refusal.

        named: Linux kernel commit ad5b177bd73f ("bpf: Add map_name to bpf_map_info") (in v4.15)
        """
        map_type: Optional[int] = getattr(uapi, spec.type, None)
        if map_type is None:
            raise ProgError(f"map {spec.name}: unknown type {spec.type}")
        attr = struct.pack("=IIIII", map_type, spec.key_size, spec.value_size, spec.max_entries, 0)
        if named:
            attr += struct.pack("=II16s", 0, 0, spec.name.encode()[: uapi.BPF_OBJ_NAME_LEN - 1])
        try:
            fd = memlock.bpf("BPF_MAP_CREATE", uapi.BPF_MAP_CREATE, bytearray(attr))
        except SyscallError as error:
            if error.errno == errno.ENOSYS:
                raise kernel.no_bpf(error.name) from None
            raise
        value_size = spec.value_size
        if spec.type == "BPF_MAP_TYPE_PERCPU_ARRAY":
            value_size = percpu_size(spec.value_size)
        return cls(spec, fd, value_size)

    def _element(self, name: str, cmd: int, key: bytes, value: Optional[bytearray] = None, flags: int = 0) -> None:
        key_buffer = bytearray(key)
        value_address = syscall.address(value) if value is not None else 0
        attr = struct.pack("=IIQQQ", self.fd, 0, syscall.address(key_buffer), value_address, flags)
        syscall.bpf(name, cmd, bytearray(attr))

    def lookup(self, key: bytes) -> Optional[bytes]:
        """The value of `key`, or None."""
        value = bytearray(self.value_size)
        try:
            self._element("BPF_MAP_LOOKUP_ELEM", uapi.BPF_MAP_LOOKUP_ELEM, key, value)
        except SyscallError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return bytes(value)

    def update(self, key: bytes, value: bytes, flags: int = uapi.BPF_ANY) -> None:
        """Sets a value; with BPF_NOEXIST only if the key is not there (SyscallError with EEXIST)."""
        self._element("BPF_MAP_UPDATE_ELEM", uapi.BPF_MAP_UPDATE_ELEM, key, bytearray(value), flags)

    def zero(self) -> None:
        """Sets every value of an array to 0, in one call. Raises SyscallError where the kernel has none for many.

        Linux kernel commit aa2e93b8e58e ("bpf: Add generic support for update and delete batch ops") (in v5.6)
        """
        entries = self.spec.max_entries
        keys = bytearray(struct.pack(f"={entries}I", *range(entries)))
        values = bytearray(entries * self.value_size)
        # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
        attr = struct.pack("=QQQQIIQQ", 0, 0, syscall.address(keys), syscall.address(values), entries, self.fd, 0, 0)
        syscall.bpf("BPF_MAP_UPDATE_BATCH", uapi.BPF_MAP_UPDATE_BATCH, bytearray(attr))

    def delete(self, key: bytes) -> bool:
        """Removes `key`; False if it was not there."""
        try:
            self._element("BPF_MAP_DELETE_ELEM", uapi.BPF_MAP_DELETE_ELEM, key)
        except SyscallError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys, in the kernel's order. A map in use may give a key twice or miss one; the walk is bounded."""
        key = bytearray(self.spec.key_size)
        following = bytearray(self.spec.key_size)
        start = 0
        for _ in range(2 * self.spec.max_entries):
            attr = struct.pack("=IIQQ", self.fd, 0, start, syscall.address(following))
            try:
                syscall.bpf("BPF_MAP_GET_NEXT_KEY", uapi.BPF_MAP_GET_NEXT_KEY, bytearray(attr))
            except SyscallError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield bytes(following)
            key[:] = following
            start = syscall.address(key)

    def memory(self) -> Optional[int]:
        """Bytes of kernel memory that the map takes (/proc/self/fdinfo, memlock), or None where that is not told."""
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "memlock":
                    return int(value)
        return None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def percpu_size(value_size: int) -> int:
    """Bytes that a look-up in a per-CPU map gives: a value of each possible CPU, padded."""
    return (value_size + 7) // 8 * 8 * (max(cpus("possible")) + 1)


def cpus(which: str) -> List[int]:
    """The numbers of the "possible" CPUs, for which the kernel sizes per-CPU values, or of those "online"."""
    with open(f"/sys/devices/system/cpu/{which}", "rb") as file:  # as text it would import a codec, once, for nothing
        ranges = [part.split(b"-") for part in file.read().strip().split(b",")]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


def lru_entries(sockets: int) -> int:
    """Entries that an LRU map needs so as to evict none of so many.

    Each CPU may keep LOCAL_FREE_TARGET free ones for itself, out of the others' reach, and one that has none left takes
    as many from those that are free: where there are fewer, it evicts (kernel/bpf/bpf_lru_list.c).
    """
    return sockets + LOCAL_FREE_TARGET * (len(cpus("possible")) + 1)
