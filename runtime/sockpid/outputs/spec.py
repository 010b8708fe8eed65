"""`--output KIND[:PLACE][,key=value]...` as an output."""

from __future__ import annotations

from .arguments import Arguments
from .base import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

KINDS = ("table", "json", "file", "unix", "syslog", "journald", "prometheus", "otlp")


def open_output(text: str, limit: int) -> Tuple[Output, int]:
    """The output that a command line names, and how many records it may have waiting (`limit` unless `queue=` says).

    Raises UsageError, and OutputError if it cannot be opened.
    """
    arguments = Arguments(text)
    limit = arguments.number("queue", limit)
    output = _output(arguments)
    output.spec = text
    return output, limit


def _output(arguments: Arguments) -> Output:
    """Imports no module but the kind's own: start-up time counts."""
    kind = arguments.kind
    if kind == "table":
        from .table import Table

        return Table.from_arguments(arguments)
    if kind == "json":
        from .jsonlines import JsonLines

        return JsonLines.from_arguments(arguments)
    if kind == "file":
        from .file import File

        return File.from_arguments(arguments)
    if kind == "unix":
        from .unix import Unix

        return Unix.from_arguments(arguments)
    if kind == "syslog":
        from .syslog import Syslog

        return Syslog.from_arguments(arguments)
    if kind == "journald":
        from .journald import Journald

        return Journald.from_arguments(arguments)
    if kind == "prometheus":
        from .prometheus import Prometheus

        return Prometheus.from_arguments(arguments)
    if kind == "otlp":
        from .otlp import Otlp

        return Otlp.from_arguments(arguments)
    raise arguments.wrong(f"{kind!r} is none of {', '.join(KINDS)}")
