"""What a run is asked for."""

from __future__ import annotations

from sockpid.event.filters import Filter
from sockpid.namedtuple import NamedTuple
from sockpid.owner.labels import Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple


class RunOptions(NamedTuple):
    """json: sums and summary as JSON. duration: seconds, None: until a signal. sharers: look up who else has it open.
    seed: ask for the sockets that exist already. summary: compare with the kernel's counters at the end. every: sum in
    the kernel and print every so many seconds. pin: directory to pin socket_to_pid in. filter: which events. outputs:
    where events go, as on the command line. labels: what to say of owners. host: what to call this one, None: its name.
    keep: leave the maps to the next run that pins there, and go on with those that the last one left. witness: hold
    owners against who has the socket open.
    """

    json: bool = False
    duration: Optional[float] = None
    sharers: bool = False
    seed: bool = True
    summary: bool = False
    every: Optional[float] = None
    pin: Optional[str] = None
    filter: Filter = Filter()
    outputs: Tuple[str, ...] = ("table",)
    labels: Wanted = Wanted()
    host: Optional[str] = None
    keep: bool = False
    witness: bool = True
