"""Signals as something to look at in a loop, which they wake."""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


class Signals:
    """SIGINT and SIGTERM: `stop`. SIGHUP: reload() is true once. Until close(), after which all is as before."""

    def __init__(self) -> None:
        self.stop = False
        self._reload = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers: Dict[int, Any] = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self.stop = True

    def fileno(self) -> int:
        """Readable after a signal, until reload() is asked."""
        return self._read

    def reload(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        self._reload, asked = False, self._reload
        return asked

    def close(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
