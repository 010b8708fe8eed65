"""Random bytes that are there at once.

os.urandom() waits until the kernel has gathered enough, which takes minutes early after boot, in virtual machines and
before Linux 5.6 above all, and no signal ends it. What is asked for here keeps no secret.
"""

from __future__ import annotations

import os
import time

URANDOM = "/dev/urandom"


def random_bytes(count: int) -> bytes:
    """Up to 256 bytes: from the kernel, or, before it has random ones, what it or the clock gives."""
    try:
        return os.getrandom(count, os.GRND_NONBLOCK)
    except (OSError, AttributeError):  # not ready; before Linux 3.17, or refused; a Python built without
        pass
    try:
        with open(URANDOM, "rb", buffering=0) as file:
            found = file.read(count)
        if len(found) == count:
            return found
    except OSError:  # a bare /dev
        pass
    from sockpid.sha256 import sha256

    stretched = b""
    while len(stretched) < count:
        seed = os.getpid(), time.time_ns(), time.perf_counter_ns(), len(stretched)
        stretched += sha256(repr(seed).encode()).digest()
    return stretched[:count]
