"""Files that travel with the package: offset tables and bytecode images.

They lie in sockpid/_data in a wheel or a zipapp, and two directories up in a checkout.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

_PACKAGE = os.path.dirname(__file__)
_LOADER: Any = globals()["__spec__"].loader


def archive() -> Optional[str]:
    """The bundle that this code was loaded from, or None."""
    found = getattr(_LOADER, "archive", None)
    return found if isinstance(found, str) else None


def content() -> Optional[bytes]:
    """All bytes of that bundle, as they were when it was looked at; None where it was not."""
    found = getattr(_LOADER, "content", None)
    return found if isinstance(found, bytes) else None


def read(path: str) -> Optional[bytes]:
    """The bytes of a data file such as "offsets/x86_64/6.1.json", or None.

    The loader of this package is asked, as by pkgutil.get_data(); to import pkgutil would take longer than to read.
    """
    for root in ("_data", "../.."):
        try:
            found: bytes = _LOADER.get_data(os.path.join(_PACKAGE, *f"{root}/{path}".split("/")))
        except OSError:
            continue
        return found
    return None
