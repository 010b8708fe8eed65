"""Signals as something to look at in a loop, which they wake.

The module signal makes enumerations of its numbers, which takes as long as to load three programs. So it is imported
once signals are listened to.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


class Signals:
    """SIGINT and SIGTERM: `stop`. SIGHUP: reload() is true once. From listen() to close(); before and after, they do
    what they do to any process, so listen() comes before anything is made that must not stay behind."""

    def __init__(self) -> None:
        self.stop = False
        self._reload = False
        self._handlers: Dict[int, Any] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def listen(self) -> None:
        """From now on; a second time changes nothing."""
        if self._handlers:
            return
        import signal

        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        notes = {signal.SIGINT: self._note, signal.SIGTERM: self._note, signal.SIGHUP: self._note_reload}
        for number, note in notes.items():
            self._handlers[number] = signal.signal(number, note)

    def _note(self, _number: int, _frame: Any) -> None:
        self.stop = True

    def _note_reload(self, _number: int, _frame: Any) -> None:
        self._reload = True

    def fileno(self) -> int:
        """Readable after a signal, until reload() is asked."""
        return self._read

    def reload(self) -> bool:
        try:  # noqa: SIM105 - contextlib takes a hundred KiB, and nothing else of a plain run wants it
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
        self._reload, asked = False, self._reload
        return asked

    def close(self) -> None:
        if self._handlers:
            import signal

            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unwind() -> None:
    """From now on SIGTERM and SIGHUP end the process as SIGINT does: what it made is taken away first."""
    import signal

    def end(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # the same again is no reason to leave anything behind
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, end)
