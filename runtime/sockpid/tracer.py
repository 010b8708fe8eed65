"""The probe as one thing: identify the kernel, find its offsets, load, attach, and read events."""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional

from . import data, event, image, kernel, offsets
from .collection import Collection, Options
from .errors import ImageError
from .ringbuf import RingBuffer

COUNTER_EVENTS = 0
COUNTER_LOST = 1


class Tracer:
    """An attached probe. Iterate with `events`; end with close() or `with`."""

    def __init__(self, identity: kernel.Identity, found: offsets.Offsets, collection: Collection) -> None:
        self.kernel = identity
        self.offsets = found
        self.collection = collection
        self._reader = RingBuffer(collection.maps["events"])

    @classmethod
    def open(cls, options: Options, offsets_path: Optional[str] = None) -> Tracer:
        """Attaches the probe to the running kernel. Raises the errors of every step, leaving nothing behind."""
        identity = kernel.identify()
        loaded = load_image(identity.arch.byte_order)
        found = offsets.find(loaded, identity, offsets_path, options.deny)
        collection = Collection.attach(loaded, found.layout, options)
        try:
            return cls(identity, found, collection)
        except BaseException:
            collection.close()
            raise

    def events(self, timeout: float) -> List[event.Event]:
        """What arrived within `timeout` seconds, oldest first; returns as soon as there is something."""
        if not self._reader.wait(timeout):
            return []
        return [event.decode(record) for record in self._reader.drain()]

    def json(self, value: event.Event) -> Dict[str, event.Json]:
        """The event as the documented object, with the wall clock of now."""
        return value.json(time.time_ns() - time.monotonic_ns(), self.offsets.origin, self.reason())

    def reason(self) -> str:
        """Why an owner is not known."""
        return "older-than-probe" if self.collection.learns() else "no-hook"

    def lost(self) -> int:
        """Events that did not fit into the ring buffer."""
        return self.collection.counter(COUNTER_LOST)

    def owner_of(self, key: event.Tuple) -> Optional[event.Process]:
        """What the socket_to_pid map says of a socket."""
        value = self.collection.maps["socket_to_pid"].lookup(event.pack_tuple(key))
        return event.unpack_process(value) if value is not None else None

    def close(self) -> None:
        self._reader.close()
        self.collection.close()

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_image(byte_order: str) -> image.Image:
    """The bytecode image for this byte order. Raises ImageError."""
    path = f"bpf_bytecode/{image.file_name(byte_order)}"
    content = data.read(path)
    if content is None:
        raise ImageError(f"{path} is missing from this installation")
    loaded = image.parse_image(content, os.path.basename(path))
    if loaded.byte_order != byte_order:
        raise ImageError(f"{path} holds a {loaded.byte_order}-endian image")
    return loaded
