"""The pins of a run, from the lock to the last sign: the public map, its own record, and what it keeps for the next."""

from __future__ import annotations

from sockpid.bpf.map import Map
from sockpid.host import kernel
from sockpid.image.image import Image
from sockpid.offsets.source import Offsets
from sockpid.pins.health import Health
from sockpid.pins.instance import Instance
from sockpid.pins.keep import Gap, Keeper
from sockpid.pins.pin import Pins
from sockpid.probe.collection import Options
from sockpid.probe.tracer import Tracer

from .start import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, Optional


class Pinning:
    """Open it before the probe, and close it after the probe is gone."""

    def __init__(self, directory: str, keep: bool) -> None:
        """Raises what Pins() raises."""
        self._pins = Pins(directory)
        try:
            self._directory = directory
            self._keeper = Keeper(directory, keep)
            self._record: Optional[Instance] = None
            self._health: Optional[Health] = None
            self._gap: Optional[Gap] = None
        except BaseException:
            self._pins.close()
            raise

    def attached(self, tracer: Tracer) -> None:
        """At once after the probe is attached: here the gap ends."""
        self._gap = self._keeper.gap(tracer.collection)

    def inherit(self, identity: kernel.Identity, image: Image, found: Offsets, options: Options) -> Mapping[str, Map]:
        return self._keeper.inherit(identity, image, found, options)

    def pin(self, tracer: Tracer) -> None:
        """Once the probe is proved."""
        owners = tracer.collection.maps["socket_to_pid"]
        gap = self._gap
        if self._keeper.adopted is not None:
            self._pins.adopt(owners)
        else:
            self._pins.pin(owners)
        self._keeper.put(tracer.collection)
        self._record = Instance(self._directory)
        self._health = Health(tracer, self._record, self._keeper, gap)
        for line in self._keeper.lines():
            say(line)
        if gap is not None:
            former = self._keeper.former_pid()
            if self._keeper.adopted is not None:
                say(f"took over {tracer.living()} sockets with their owners from pid {former}")
            say(
                f"gap of {gap.seconds} s after pid {former}: {gap.unseen} retransmits not seen, {gap.waiting} told late"
                + (f", {gap.unsure} perhaps not told" if gap.unsure else "")
            )

    def beat(self, told: Dict[str, Any], state: str) -> None:
        if self._health is not None:
            self._health.beat(told, state)

    def close(self) -> None:
        if self._record is not None:
            self._record.close()
            if self._keeper.kept:
                self._pins.leave()
            else:
                self._keeper.clear(all_of_it=True)
        self._pins.close()

    def __enter__(self) -> Pinning:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
