"""Events to syslog as RFC 5424 datagrams: a message for people, structured data for machines."""

from __future__ import annotations

import functools
import os
import time
from typing import Any, Deque, Dict

from sockpid.event.text import Shape, flat, printable, sentence, shape

from .arguments import Arguments
from .base import Output, Record
from .datagram import Datagrams

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "security", "console", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
INFORMATIONAL = 6
SD_ID = "sockpid@32473"
"""32473 is the enterprise number that stands for an example (RFC 5612): sockpid has none of its own."""


class Syslog(Output):
    def __init__(self, path: str, facility: int) -> None:
        super().__init__(f"syslog:{path}")
        self._datagrams = Datagrams(path)
        self._head = f"<{facility * 8 + INFORMATIONAL}>1 "
        self._tail = f" {_word(os.uname().nodename)} sockpid {os.getpid()} retransmit "
        self.stop = self._datagrams.stop  # type: ignore[method-assign] # it is what stops

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Syslog:
        path = arguments.place("/dev/log")
        (facility,) = arguments.words("facility", "daemon", FACILITIES)[:1] or ("daemon",)
        arguments.done()
        return cls(path, FACILITIES.index(facility))

    def write(self, pending: Deque[Record]) -> None:
        while pending:
            if not pending[0].is_gap:
                self._datagrams.send(self.message(pending[0].document))
            pending.popleft()

    def message(self, document: Dict[str, Any]) -> bytes:
        """One event as RFC 5424, section 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG."""
        seconds, ns = divmod(document["ts_ns"], 10**9)
        stamp = f"{_second(seconds)}.{ns // 1000:06d}Z"
        fields = flat(document)
        found = shape(fields)
        strings, integers, flags = found.values(fields)
        data = _template(found) % (*map(_quoted, strings), *integers, *flags)
        return f"{self._head}{stamp}{self._tail}[{data}] {sentence(document)}".encode()

    def close(self) -> None:
        self._datagrams.close()


def _word(text: str) -> str:
    return "".join(c if "!" <= c <= "~" else "?" for c in text)[:255] or "-"


@functools.lru_cache(maxsize=256)
def _template(of: Shape) -> str:
    """The structured data of an event, up to its values. What a name of RFC 5424 cannot hold is left out."""
    fields = [f' {name.replace("%", "%%")}="%s"' if len(name) <= 32 else "%.0s" for name in of.names]
    return SD_ID + "".join(fields)


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "]": "\\]"})


@functools.lru_cache(maxsize=1024)
def _quoted(value: str) -> str:
    """A PARAM-VALUE: quote, backslash and bracket are escaped; control characters are not shown."""
    return printable(value).translate(_ESCAPED)
