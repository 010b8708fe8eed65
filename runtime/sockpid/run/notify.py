"""What systemd wants to be told of a service (sd_notify(3)): datagrams to a Unix socket, and nothing else."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import MutableMapping, Optional


class Notifier:
    """Tells the service manager, if there is one. Never waits, never fails: a service must not end for want of it."""

    def __init__(self, address: Optional[str] = None, watchdog: Optional[float] = None) -> None:
        """address: as NOTIFY_SOCKET has it: a path, or "@" and an abstract name. watchdog: seconds after which we are
        taken for dead."""
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self._every = watchdog / 2 if watchdog else None
        self._next = 0.0
        self._status = ""
        self._ready = False

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Takes the variables out: they are not for our children. Ill-formed or others' ones are as none."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address[:1] not in ("@", "/"):
            return cls()
        ours = microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if ours else None)

    def ready(self, status: str) -> None:
        """The start, or a reload, is done. From here on the watchdog wants its sign of life."""
        self._ready = True
        self._status = status
        self._send("READY=1", f"STATUS={status}")
        self.alive()

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=ending")

    def status(self, status: str) -> None:
        """A line for people, told if it is another than before."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def alive(self) -> None:
        """A sign of life, if half of the watchdog's time is over. Call it wherever work goes on."""
        if self._ready and self._every is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            self._send("WATCHDOG=1")

    def due(self) -> float:
        """Seconds until alive() has something to tell; infinite without a watchdog."""
        return float("inf") if self._every is None or not self._ready else max(0.0, self._next - time.monotonic())

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            import socket

            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # nobody listens, or its queue is full: the next sign of life is half a period away
            pass
