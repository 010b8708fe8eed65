"""Counters for Prometheus to fetch: a small HTTP server, on the loopback address unless told otherwise."""

from __future__ import annotations

import http.server
import socket
import threading
from typing import Callable, Deque, Iterator, List, Tuple

from sockpid.errors import OutputError

from .arguments import Arguments
from .base import Output, Record
from .metrics import RTT_BOUNDS, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUS = {
    "raised": "Events that the probe raised in the kernel.",
    "delivered": "Events that were read from the kernel.",
    "lost": "Events that found the ring buffer full.",
    "evicted": "Living sockets whose owner was forgotten for want of room.",
    "confirmed": "Events whose owner had the socket open.",
    "contradicted": "Events whose seen owner was alive and did not have the socket open that another had.",
    "unchecked": "Events of open sockets of which there was no time to see, or no right, who has them open.",
    "uncertain": "Events told with an uncertain owner.",
    "missed": "Runs of hooks that learn owners that the kernel passed over.",
}


class Prometheus(Output):
    """GET /metrics. Between two of them only counts are kept."""

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        """Raises OutputError if the address cannot be had."""
        super().__init__(f"prometheus:{host}:{port}")
        self._metrics = metrics
        try:
            self._server = _Server((host, port), self.text)
        except OSError as error:
            raise OutputError(f"output prometheus {host}:{port}: {error.strerror or error}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="output-http", daemon=True)

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Prometheus:
        place = arguments.place("127.0.0.1:9469")
        host, colon, port = place.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise arguments.wrong(f"{place} is not of the form ADDRESS:PORT")
        metrics = Metrics.from_arguments(arguments)
        arguments.done()
        return cls(host.strip("[]"), int(port), metrics)

    def start(self) -> None:
        self._thread.start()

    def write(self, pending: Deque[Record]) -> None:
        self._metrics.add([record.document for record in pending if not record.is_gap])
        pending.clear()

    def text(self) -> bytes:
        """The exposition format 0.0.4."""
        return "".join(line + "\n" for line in self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        now, names = self._metrics.snapshot(), self._metrics.label_names()
        yield from _family("sockpid_retransmits_total", "counter", "Retransmits, by the labels that were chosen.")
        for values, count in sorted(now.series.items()):
            yield f"sockpid_retransmits_total{_labels(list(zip(names, values)))} {count}"
        yield from _family(
            "sockpid_series_overflow_total", "counter", "Retransmits counted as __other__: too many label values."
        )
        yield f"sockpid_series_overflow_total {now.overflow}"
        yield from _family(
            "sockpid_srtt_seconds", "histogram", "Smoothed round trip time of the socket at a retransmit."
        )
        total = 0
        for bound, count in zip((*map(str, RTT_BOUNDS), "+Inf"), now.rtt):
            total += count
            yield f'sockpid_srtt_seconds_bucket{{le="{bound}"}} {total}'
        yield f"sockpid_srtt_seconds_sum {now.rtt_sum:.9g}"
        yield f"sockpid_srtt_seconds_count {total}"
        status = self.status
        for name, text in STATUS.items():
            if name in status:
                yield from _family(f"sockpid_{name}_total", "counter", text)
                yield f"sockpid_{name}_total {status[name]}"
        yield from _family("sockpid_output_dropped_total", "counter", "Events that an output could not deliver.")
        for name, value in status.items():
            if name.startswith("dropped:"):
                yield f"sockpid_output_dropped_total{_labels([('output', name[8:])])} {value}"

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()  # within a tenth of a second; a client that hangs is in a thread of its own
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: Tuple[str, int], text: Callable[[], bytes]) -> None:
        self.text = text
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the reverse look-up of our name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10
    server_version = "sockpid"
    sys_version = ""

    def do_GET(self) -> None:
        found = self.path.partition("?")[0] == "/metrics"
        assert isinstance(self.server, _Server)
        body = self.server.text() if found else b"there is only /metrics here\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of what was fetched."""


def _family(name: str, kind: str, text: str) -> List[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(pairs: List[Tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
