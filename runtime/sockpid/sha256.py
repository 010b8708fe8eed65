"""SHA-256 by CPython itself, as its own `random` module takes a hash: hashlib loads all of OpenSSL for it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING or sys.implementation.name != "cpython":  # PyPy's own is written in Python
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # CPython 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256  # CPython before
        except ImportError:
            from hashlib import sha256  # built without its own

__all__ = ["sha256"]
