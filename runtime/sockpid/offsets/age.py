"""How old the table that travels along is, beside the kernel that runs. Pure.

A table has no date of its own: it is as old as the newest kernel in it, and a kernel's banner says when it was built.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple, Optional

from sockpid.table.table import Shard

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
ISO = re.compile(r"\(([0-9]{4})-([0-9]{2})-([0-9]{2})\)\Z")
"""As Debian ends a banner."""
CTIME = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) +([0-9]{1,2}) [0-9:]{8} (?:\S+ )?([0-9]{4})\Z")
"""As date(1) prints, which scripts/mkcompile_h of the kernel uses unless told otherwise."""


class Age(NamedTuple):
    """Of the part of the table that has a kernel's series.

    kernels: in it. newest: the release of the one that was built last, and built: when, as 2026-12-01; None where no
    banner tells. has_this: the running kernel is one of them. days: by how many days this one was built later (or
    earlier, if negative); None where either is not known.
    """

    series: str
    kernels: int
    newest: Optional[str]
    built: Optional[str]
    has_this: bool
    days: Optional[int]


def age(shard: Shard, has_this: bool, banner: str) -> Age:
    """banner: of the running kernel."""
    dated = [(when, e.release) for e in shard.entries for when in [built(e.banner or "")] if when is not None]
    mine = built(banner)
    if not dated:
        return Age(shard.series, len(shard), None, None, has_this, None)
    when, release = max(dated)
    days = None if mine is None else (mine - when).days
    return Age(shard.series, len(shard), release, when.isoformat(), has_this, days)


def built(banner: str) -> Optional[datetime.date]:
    """When a kernel was built, as its banner ends; None where it says nothing that can be read."""
    iso, ctime = ISO.search(banner.rstrip()), CTIME.search(banner.rstrip())
    try:
        if iso is not None:
            year, month, day = map(int, iso.groups())
            return datetime.date(year, month, day)
        if ctime is not None and ctime[1] in MONTHS:
            return datetime.date(int(ctime[3]), MONTHS.index(ctime[1]) + 1, int(ctime[2]))
    except ValueError:  # no day of any month
        pass
    return None


NEWER = {
    "table": "nothing: this very build is in it",
    "btf": "the first start reads the kernel's own BTF no more; the offsets stay what they are",
    "consensus": "if it has this build: nothing has to be proved by trying other builds' offsets, fentry can be used",
    "calibrated": "if it has this build: fields that no calibration finds are used, and fentry",
    None: "if it has this build, or one like it, sockpid runs here",
}
"""What a newer table would change, by where the offsets come from; None: from nowhere."""
