"""Files that travel with the package: offset tables and bytecode images.

They lie in sockpid/_data in a wheel or a zipapp, and two directories up in a checkout.
"""

from __future__ import annotations

import pkgutil
from typing import Optional


def archive() -> Optional[str]:
    """The bundle that this code was loaded from, or None."""
    found = getattr(globals().get("__loader__"), "archive", None)
    return found if isinstance(found, str) else None


def read(path: str) -> Optional[bytes]:
    """The bytes of a data file such as "offsets/x86_64/6.1.json", or None."""
    for root in ("_data/", "../../"):
        try:
            data = pkgutil.get_data("sockpid", root + path)
        except OSError:
            continue
        if data is not None:
            return data
    return None
