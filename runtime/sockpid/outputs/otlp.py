"""Events as logs and counts as metrics to an OpenTelemetry collector: OTLP over HTTP, in JSON."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.client
import json
import os
import random
import threading
import time
import urllib.parse
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

from sockpid import __version__

from . import otlp_json
from .arguments import Arguments
from .base import Busy, Output, Record
from .metrics import Metrics
from .spool import Spool

RETRYABLE = frozenset((429, 502, 503, 504))
"""HTTP statuses after which the same request may be sent again (OTLP specification, "Retryable Response Codes")."""

PAUSE_SECONDS = 1.0, 60.0
LONGEST_RETRY_AFTER = 300.0
SIGNALS = ("logs", "metrics")


class Otlp(Output):
    """With a queue directory, what the collector does not take goes there, and from there to it, oldest first. Metrics
    do not: they are sums since the start, so the next ones say it all."""

    gather = 1.0
    every = 1.0

    def __init__(
        self,
        url: str,
        signals: Tuple[str, ...],
        metrics: Metrics,
        spool: Optional[Spool] = None,
        interval: float = 15.0,
        timeout: float = 10.0,
        compress: bool = False,
        headers: Optional[Mapping[str, str]] = None,
        ca: Optional[str] = None,
    ) -> None:
        super().__init__(f"otlp:{url}")
        self._collector = Collector(url, timeout, compress, headers or {}, ca)
        self._signals, self._metrics, self._spool, self._interval = signals, metrics, spool, interval
        self._started = time.time_ns()
        self._next_metrics = time.monotonic() + interval
        self._not_before = self._pause = 0.0
        self._stopping = threading.Event()
        self._refusals = 0

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Otlp:
        url = arguments.place(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://127.0.0.1:4318")
        if urllib.parse.urlsplit(url).scheme not in ("http", "https") or not urllib.parse.urlsplit(url).hostname:
            raise arguments.wrong(f"{url} is not an http or https URL")
        directory, limit = arguments.text("queue-dir"), arguments.size("queue-size", "64M")
        signals = arguments.words("signals", "logs+metrics", SIGNALS)
        metrics = Metrics.from_arguments(arguments)
        interval, timeout = arguments.seconds("interval", "15s"), arguments.seconds("timeout", "10s")
        compress = arguments.words("compress", "none", ("none", "gzip")) == ("gzip",)
        ca = arguments.text("ca") or None
        arguments.done()
        spool = Spool(os.path.abspath(directory), limit) if directory else None
        return cls(url, signals, metrics, spool, interval, timeout, compress, _headers(), ca)

    def _resource(self) -> Dict[str, Any]:
        """Its host.name stands for the `host` of the events."""
        return otlp_json.resource(self.host, __version__)

    def write(self, pending: Deque[Record]) -> None:
        documents = [record.document for record in pending if not record.is_gap]
        if "logs" in self._signals and documents:
            request = otlp_json.logs(self._resource(), __version__, documents, time.time_ns())
            self._deliver(request, len(documents))
        if "metrics" in self._signals:
            self._metrics.add(documents)
        pending.clear()

    def _deliver(self, body: bytes, events: int) -> None:
        """To the collector, or else to the queue on disk. Raises Busy if there is none."""
        if self._spool is None:
            self._send("/v1/logs", body, events)
            return
        if not len(self._spool) and self._may_send():
            with contextlib.suppress(OSError):
                self._send("/v1/logs", body, events)
                return
        self.dropped += self._spool.push(body, events)

    def _may_send(self) -> bool:
        return time.monotonic() >= self._not_before and not self._stopping.is_set()

    def tick(self) -> None:
        while self._spool is not None and self._may_send():
            oldest = self._spool.oldest()
            if oldest is None:
                break
            with contextlib.suppress(OSError):
                self._send("/v1/logs", self._spool.read(oldest), oldest.events)
                self._spool.remove(oldest)
        if "metrics" in self._signals and time.monotonic() >= self._next_metrics:
            self._next_metrics = time.monotonic() + self._interval
            self._send_metrics()

    def _send_metrics(self) -> None:
        if self._may_send():
            now, labels = self._metrics.snapshot(), self._metrics.labels
            request = otlp_json.metrics(
                self._resource(), __version__, labels, now, self.status, self._started, time.time_ns()
            )
            with contextlib.suppress(OSError):  # the next ones hold these too
                self._send("/v1/metrics", json.dumps(request).encode(), 0)

    def _send(self, path: str, body: bytes, events: int) -> None:
        """Raises OSError if it may be tried again. What the collector refuses for good is dropped."""
        try:
            status, headers, answer = self._collector.post(path, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._busy(f"{self._collector.url}: {error}", None) from None
        if status in RETRYABLE:
            raise self._busy(f"{self._collector.url}{path} answers {status}", headers.get("Retry-After"))
        self._pause = 0.0
        if 200 <= status < 300:
            rejected = _rejected(answer)
        else:
            rejected = events
            if not self._refusals:
                self.warn(f"output {self.name}: {path} answers {status} for good: {answer[:200]!r}")
            self._refusals += 1
        self.dropped += min(rejected, events)

    def _busy(self, why: str, retry_after: Optional[str]) -> Busy:
        self._pause = min(max(self._pause * 2, PAUSE_SECONDS[0]), PAUSE_SECONDS[1])
        seconds = min(_seconds(retry_after), LONGEST_RETRY_AFTER) or self._pause * random.uniform(0.5, 1.0)
        self._not_before = time.monotonic() + seconds
        return Busy(why, seconds)

    def stop(self) -> None:
        self._stopping.set()
        self._collector.interrupt()

    def close(self) -> None:
        if "metrics" in self._signals:
            self._send_metrics()
        self._collector.close()
        if self._spool is not None:
            self._spool.close()


class Collector:
    """One kept-alive connection."""

    def __init__(self, url: str, timeout: float, compress: bool, headers: Mapping[str, str], ca: Optional[str]) -> None:
        self.url = url.rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        self._path = parts.path
        self._compress = compress
        self._headers = {"Content-Type": "application/json", "User-Agent": f"sockpid/{__version__}", **headers}
        if compress:
            self._headers["Content-Encoding"] = "gzip"
        host = parts.hostname or ""
        if parts.scheme == "https":
            import ssl

            context = ssl.create_default_context(cafile=ca)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def post(self, path: str, body: bytes) -> Tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer. Raises OSError and HTTPException."""
        try:
            data = gzip.compress(body, 1) if self._compress else body
            self._connection.request("POST", self._path + path, data, dict(self._headers))
            answer = self._connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read(1 << 16)
        except BaseException:
            self._connection.close()
            raise

    def interrupt(self) -> None:
        """From another thread: whoever waits for the collector gets an error."""
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(2)

    def close(self) -> None:
        self._connection.close()


def _rejected(answer: bytes) -> int:
    """Records that the collector did not take although it took the request (partialSuccess)."""
    try:
        partial: Dict[str, Any] = json.loads(answer or b"{}").get("partialSuccess") or {}
        return int(partial.get("rejectedLogRecords") or 0)
    except (ValueError, AttributeError, TypeError):
        return 0


def _seconds(retry_after: Optional[str]) -> float:
    """Retry-After is a number of seconds or a date (RFC 9110). 0 if there is none."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, IndexError):
        return 0.0


def _headers() -> Dict[str, str]:
    """OTEL_EXPORTER_OTLP_HEADERS: a=b,c=d, percent-encoded. Secrets do not belong on a command line."""
    pairs: List[str] = [p for p in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if "=" in p]
    return {
        urllib.parse.unquote(k.strip()): urllib.parse.unquote(v.strip()) for k, v in (p.split("=", 1) for p in pairs)
    }
