"""All outputs of a run."""

from __future__ import annotations

import os
import threading
import time

from sockpid.errors import UsageError

from .base import Output, Record
from .sink import Sink
from .spec import open_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

LIMIT = 65536
"""Records that an output may have waiting, unless its `queue=` says otherwise."""

CLOSE_SECONDS = 0.9


class Outputs:
    """Hands every event to every output. End with close()."""

    def __init__(self, outputs: Sequence[Tuple[Output, int]], warn: Callable[[str], None]) -> None:
        """outputs: each with the number of records it may have waiting. warn: told of outputs that fail and recover."""
        self._warn = warn
        self._host = os.uname().nodename
        self._sinks = [Sink(output, limit, warn) for output, limit in outputs]
        self._ended: List[Sink] = []
        self._closed = False

    @classmethod
    def open(cls, specs: Sequence[str], warn: Callable[[str], None]) -> Outputs:
        """The outputs of a command line. Raises UsageError, also if two want standard output, and OutputError."""
        opened: List[Tuple[Output, int]] = []
        try:
            for spec in specs:
                opened.append(open_output(spec, LIMIT))
            talking = [output.name for output, _ in opened if output.stdout]
            if len(talking) > 1:
                raise UsageError(f"outputs {' and '.join(talking)} both want standard output; only one can have it")
        except BaseException:
            for output, _ in opened:
                output.close()
            raise
        return cls(opened, warn)

    def start(self) -> None:
        for sink in self._sinks:
            sink.start()

    def name_host(self, host: str) -> None:
        """What events call this host from now on, where it is not its name: for what outputs tell besides."""
        self._host = host
        for sink in self._sinks:
            sink.output.host = host

    def offer(self, documents: Sequence[Dict[str, Any]]) -> None:
        """Never waits for a consumer. The documents are not to be changed afterwards. Raises what ended an output."""
        self._offer([Record(document) for document in documents])

    def offer_lines(self, lines: Sequence[bytes]) -> None:
        """The same with events as JSON lines, which is best where no output wants more."""
        self._offer([Record(None, line) for line in lines])

    @property
    def want_documents(self) -> bool:
        return any(sink.output.wants_documents for sink in self._sinks)

    def _offer(self, records: List[Record]) -> None:
        for sink in self._sinks if records else ():
            sink.offer(records)
        for sink in self._sinks:
            if sink.error is not None:
                raise sink.error

    def status(self, status: Mapping[str, int]) -> None:
        """What the probe has counted, for outputs that report it."""
        whole = {**status, **{f"dropped:{sink.output.name}": sink.dropped for sink in self._sinks}}
        for sink in self._sinks:
            sink.output.status = whole

    def reopen(self) -> None:
        for sink in self._sinks:
            sink.reopen()

    def replace(self, specs: Sequence[str]) -> None:
        """Others from now on. Those that stay open their files anew; those that go write what they have waiting, within
        0.9 seconds. Raises what open() raises; then the outputs are those of before.
        """
        old = {sink.output.spec for sink in self._sinks}
        fresh = [spec for spec in dict.fromkeys(specs) if spec not in old]
        gone = [sink for sink in self._sinks if sink.output.spec not in specs]
        # A file, a socket, a port or standard output is not two outputs' at a time.
        places = {_place(spec) for spec in fresh}
        in_the_way = [sink for sink in gone if _place(sink.output.spec) in places]
        self._end(in_the_way, CLOSE_SECONDS)
        try:
            made = Outputs.open(fresh, self._warn)
        except BaseException:
            back = Outputs.open([sink.output.spec for sink in in_the_way], self._warn)
            back.name_host(self._host)
            back.start()
            self._sinks += back._sinks
            raise
        self.reopen()
        made.name_host(self._host)
        made.start()
        self._sinks += made._sinks
        self._end([sink for sink in gone if sink not in in_the_way], CLOSE_SECONDS)

    def _end(self, sinks: Sequence[Sink], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._sinks = [sink for sink in self._sinks if sink not in sinks]
        self._ended += sinks
        closing = [
            threading.Thread(target=sink.close, args=(deadline - time.monotonic(),), daemon=True) for sink in sinks
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Ends all outputs, within about so many seconds; once."""
        if self._closed:
            return
        self._closed = True
        self._end(self._sinks, seconds)

    def report(self) -> List[Dict[str, Any]]:
        """Per output: its name, events offered, written and dropped."""
        return [
            {"output": s.output.name, "offered": s.offered, "written": s.written, "dropped": s.dropped}
            for s in [*self._ended, *self._sinks]
        ]


def _place(spec: str) -> str:
    """What an output occupies: its kind and place, without the keys."""
    place = spec.partition(",")[0]
    return "standard output" if place in ("table", "json") else place
