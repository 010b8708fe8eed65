"""What a running instance says of itself, in a map beside its pins: who it is, and how it does.

A map, because it lies where the pins lie, is gone with them at the next boot, and needs no directory that outlives a
service. An update is not atomic for its readers, so length and checksum stand before the text.
"""

from __future__ import annotations

import json
import struct
import time
import zlib

from sockpid.bpf.map import Map
from sockpid.errors import PinError
from sockpid.image import image

from . import pinned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

SCHEMA = 1
NAME = "instance"
SIZE = 16384
SPEC = image.Map(NAME, "BPF_MAP_TYPE_ARRAY", 4, SIZE, 1)
_HEAD = "=II"
_KEY = bytes(4)


def path(directory: str) -> str:
    return f"{directory}/{pinned.OWN}/{NAME}"


def pack(document: Dict[str, Any]) -> bytes:
    """The value of a document. Without `hooks` if it is too long with them."""
    text = json.dumps(document).encode()
    if len(text) > SIZE - struct.calcsize(_HEAD):
        text = json.dumps({**document, "hooks": None, "outputs": None}).encode()
    return (struct.pack(_HEAD, len(text), zlib.crc32(text)) + text).ljust(SIZE, b"\0")


def unpack(value: bytes) -> Optional[Dict[str, Any]]:
    """None: no document, or one that is being replaced."""
    length, checksum = struct.unpack_from(_HEAD, value)
    text = value[struct.calcsize(_HEAD) :][:length]
    if not length or len(text) != length or zlib.crc32(text) != checksum:
        return None
    found: Dict[str, Any] = json.loads(text)
    return found


def read(directory: str) -> Optional[Dict[str, Any]]:
    """What the instance that pins there says, or said last; None if none does. Raises CapabilityError."""
    try:
        opened = pinned.open_pinned(path(directory), SPEC.key_size, SPEC.value_size)
    except PinError:
        return None
    try:
        for _ in range(20):
            value = opened.lookup(_KEY)
            found = unpack(value) if value is not None else None
            if found is not None:
                return found
            time.sleep(0.005)
        return None
    finally:
        opened.close()


class Instance:
    """Ours, pinned. close() leaves the pin."""

    def __init__(self, directory: str) -> None:
        self._map = Map.create(SPEC)
        try:
            pinned.pin_fd(self._map.fd, path(directory))
        except BaseException:
            self._map.close()
            raise

    def write(self, document: Dict[str, Any]) -> None:
        self._map.update(_KEY, pack({"schema": SCHEMA, **document}))

    def close(self) -> None:
        self._map.close()


def holder(directory: str) -> str:
    """Who pins there, in brackets, as far as it says so: " (pid 4711, since 2026-11-22 10:00:00)"."""
    found = read(directory)
    if found is None or "pid" not in found:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["since"]))
    return f" (pid {found['pid']}, since {since})"
