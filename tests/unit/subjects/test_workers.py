"""Tasks of our own."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from sockpid.subjects import workers


def test_no_signal_is_taken_by_the_second_thread() -> None:
    """What it took would be an exception in the first one, also where that has blocked it."""
    thread = workers.Thread()
    try:
        status = Path(f"/proc/{thread.thread}/status").read_text()
    finally:
        thread.close()
    (blocked,) = re.findall(r"^SigBlk:\s*([0-9a-f]+)$", status, re.MULTILINE)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        assert int(blocked, 16) >> (number - 1) & 1, number
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
