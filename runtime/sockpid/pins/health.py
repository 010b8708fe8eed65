"""What `sockpid status` is told, once a second."""

from __future__ import annotations

import os
import time

from sockpid import __version__
from sockpid.host import kernel
from sockpid.probe.tracer import Tracer

from .instance import Instance
from .keep import Gap, Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional


class Health:
    """Writes the record of a running instance: docs/operation.md has its keys."""

    def __init__(self, tracer: Tracer, record: Instance, keeper: Keeper, gap: Optional[Gap]) -> None:
        self._tracer, self._record, self._keeper = tracer, record, keeper
        identity = tracer.kernel
        self._fixed: Dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "start_ticks": kernel.process_start_ticks(),
            "since": time.time(),
            "kernel": identity.release,
            "build_id": identity.build_id,
            "offsets": {"origin": tracer.offsets.origin, "source": tracer.offsets.source},
            "hooks": tracer.collection.mechanisms(),
            "max_sockets": tracer.collection.max_sockets,
            "gap": None if gap is None else {**gap._asdict(), "unseen": gap.unseen},
            **keeper.identity(),
        }
        self._counts: Dict[str, Any] = {}
        self.beat({}, "running")

    def beat(self, told: Dict[str, Any], state: str) -> None:
        """state: "running"; "ending", when no event is raised any more; "ended", when all is written."""
        if state != "ended":
            collection = self._tracer.collection
            lost = self._tracer.lost()
            taken = collection.base.get(0, 0) - collection.base.get(1, 0) + self._tracer.delivered
            self._counts = {**self._keeper.counts(collection.counter(0), taken), "lost": lost}
        owners = self._tracer.living()
        self._record.write(
            {**self._fixed, **told, "state": state, "beat": time.time(), "owners": owners, "counts": self._counts}
        )
