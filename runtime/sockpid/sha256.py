"""SHA-256 by the interpreter itself, as its own `random` module takes a hash: hashlib loads all of OpenSSL for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # CPython 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256  # CPython before
        except ImportError:
            from hashlib import sha256  # PyPy, or a Python built without its own

__all__ = ["sha256"]
