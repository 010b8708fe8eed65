"""Events as JSON lines on standard output."""

from __future__ import annotations

import os
import select

from .arguments import Arguments
from .base import Gone, Output, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Deque

STDOUT = 1


class JsonLines(Output):
    stdout = True
    tells_gaps = True
    wants_documents = False

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> JsonLines:
        arguments.no_place()
        arguments.done()
        return cls("json")

    def write(self, pending: Deque[Record]) -> None:
        write_all(b"".join(record.line for record in pending))
        pending.clear()


def write_all(data: bytes) -> None:
    """To standard output, past Python's buffers: a thread that hangs in there would hang the interpreter at its end.

    Raises Gone if there is no reader any more, or no room.
    """
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(STDOUT, view) :]
            except BlockingIOError:  # somebody who has the same terminal or pipe has made it so
                select.select([], [STDOUT], [])
    except BrokenPipeError:
        raise Gone("standard output is closed") from None
    except OSError as error:
        gone = Gone(f"standard output: {error.strerror}")
        gone.exit_code = 1
        raise gone from None
