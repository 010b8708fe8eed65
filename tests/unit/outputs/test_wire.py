"""What outputs say to other people's programs, judged by these: rsyslogd, journald's reader, Prometheus' parser, and
OpenTelemetry's messages.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from prometheus_client.parser import text_string_to_metric_families

from sockpid.outputs import Outputs, Record, otlp_json
from sockpid.outputs.base import Busy, Output
from sockpid.outputs.journald import Journald, message
from sockpid.outputs.metrics import OTHER, Metrics
from sockpid.outputs.otlp import Otlp
from sockpid.outputs.prometheus import Prometheus
from sockpid.outputs.spec import open_output
from sockpid.outputs.spool import Spool
from sockpid.outputs.syslog import Syslog
from tests.streams import document, unknown

NASTY = {"comm": 'a"b\\]c', "labels": {"env": {"NOTE": "two\nlines = x"}, "reason": None}}


def program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/lib/systemd:/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


def give(output: Output, *documents: dict[str, Any]) -> None:
    output.write(collections.deque(Record(d) for d in documents))


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def test_syslog_is_understood_by_rsyslogd(tmp_path: Path) -> None:
    rsyslogd = program("rsyslogd", "rsyslog")
    (tmp_path / "conf").write_text(
        f'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{tmp_path}/log" '
        'UseSpecialParser="off" ParseHostname="on" RateLimit.Interval="0" '
        'IgnoreTimestamp="off")\n'
        'module(load="mmpstrucdata")\naction(type="mmpstrucdata")\n'
        'template(name="all" type="string" string="%pri%|%timereported:::date-rfc3339%|%hostname%|%app-name%|%msgid%|'
        '%$!rfc5424-sd%|%msg%\\n")\n'
        f'action(type="omfile" file="{tmp_path}/out" template="all")\n'
    )
    with subprocess.Popen([rsyslogd, "-n", "-f", str(tmp_path / "conf"), "-i", str(tmp_path / "pid")]) as daemon:
        try:
            until((tmp_path / "log").exists)
            output = Syslog(str(tmp_path / "log"), 3)
            give(output, document(), unknown(), document(**NASTY))
            until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text().count("\n") == 3)
            output.close()
        finally:
            daemon.terminate()
    rows = [line.split("|") for line in (tmp_path / "out").read_text().splitlines()]
    pri, stamp, host, app, msgid, data, text = rows[0]
    assert (pri, host, app, msgid) == ("30", os.uname().nodename, "sockpid", "retransmit")
    assert stamp.startswith("2026-11-22T15:02:48")
    assert text.strip() == "rto retransmit 10.0.0.1:40034 -> 10.0.0.2:9000 of python3[4711]"
    (params,) = json.loads(data).values()
    assert (params["pid"], params["kind"], params["how"]) == ("4711", "rto", "send")
    assert rows[1][6].strip().endswith("of an unknown owner (older-than-probe)")
    (params,) = json.loads(rows[2][5]).values()
    assert params["comm"].replace("\\", "") == 'a"b]c'


def test_names_of_variables_are_no_templates(tmp_path: Path) -> None:
    """Names are put into templates once; what is special there stays what it is."""
    long = "A" * 40
    odd = document(exited=True, labels={"env": {"A%sB": "50%", long: "x"}, "reason": None})
    said = Syslog("/dev/null", 3).message(odd).decode()
    assert re.search(r'\[sockpid@32473 kind="rto" family="inet" .* labels_env_A%sB="50%" .* exited="true"\] ', said)
    assert "  " not in said
    assert long not in said
    assert b"\nSOCKPID_LABELS_ENV_A_SB=50%\n" in message(odd)
    request = json.loads(otlp_json.logs({}, "1", [odd], 5))
    (record,) = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    attributes = {a["key"]: a["value"] for a in record["attributes"]}
    assert attributes["sockpid.labels_env_A%sB"] == {"stringValue": "50%"}
    assert attributes["sockpid.exited"] == {"boolValue": True}
    assert attributes["process.pid"] == {"intValue": "4711"}
    assert "sockpid.ts_ns" not in attributes
    assert len(attributes) == len(record["attributes"])


def test_syslog_follows_a_daemon_that_restarts(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    output = Syslog(path, 3)
    with pytest.raises(OSError, match="No such file"):
        give(output, document())
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            give(output, document())
            assert b"sockpid" in daemon.recv(1 << 16)
        os.unlink(path)
    output.close()


def test_a_busy_daemon_is_waited_for_until_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        every = Outputs([(Journald(path), 100000)], lambda _line: None)
        every.start()
        every.offer([document()] * 5000)
        started = time.monotonic()
        every.close(0.8)
        assert time.monotonic() - started < 5
        (report,) = every.report()
        assert report["offered"] == report["written"] + report["dropped"] == 5000
        received = 0
        with contextlib.suppress(BlockingIOError):
            while daemon.recv(1 << 16, socket.MSG_DONTWAIT):
                received += 1
        assert received == report["written"] > 0


def test_journald_fields_are_read_back_by_journalctl(tmp_path: Path) -> None:
    """A datagram of the native protocol is an entry of the journal's export format, but for its time stamps."""
    remote = program("systemd-journal-remote", "systemd-journal-remote")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "socket"))
        output = Journald(str(tmp_path / "socket"))
        give(output, document(), document(**NASTY))
        entries = [daemon.recv(1 << 16) for _ in range(2)]
        output.close()
    assert entries[0] == message(document())
    head = b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n"
    export = b"".join(head % (10**15 + n, 1000 + n, b"0" * 31 + b"1") + e + b"\n" for n, e in enumerate(entries))
    journal = str(tmp_path / "x.journal")
    subprocess.run([remote, "-o", journal, "-"], input=export, check=True, capture_output=True)
    shown = subprocess.run(
        ["journalctl", "--file", journal, "-o", "json", "--all"], check=True, capture_output=True, text=True
    )
    first, second = (json.loads(line) for line in shown.stdout.splitlines())
    assert (first["SOCKPID_PID"], first["SOCKPID_KIND"], first["SYSLOG_IDENTIFIER"]) == ("4711", "rto", "sockpid")
    assert first["MESSAGE"].startswith("rto retransmit 10.0.0.1:40034")
    assert second["SOCKPID_LABELS_ENV_NOTE"] == "two\nlines = x"
    assert second["SOCKPID_COMM"] == 'a"b\\]c'


def fetch(output: Prometheus, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{output.port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


@contextlib.contextmanager
def exporter(labels: Sequence[str], limit: int) -> Iterator[Prometheus]:
    output = Prometheus("127.0.0.1", 0, Metrics(tuple(labels), limit))
    output.start()
    try:
        yield output
    finally:
        output.close()


def test_prometheus_understands_the_metrics() -> None:
    with exporter(["kind", "comm", "env.NOTE"], 100) as output:
        give(output, document(), document(), unknown(), document(**NASTY))
        output.status = {"raised": 10, "lost": 1, "confirmed": 7, "missed": 2, "dropped:file:/x": 3}
        families = {family.name: family for family in text_string_to_metric_families(fetch(output))}
    samples = {tuple(s.labels.values()): s.value for s in families["sockpid_retransmits"].samples}
    assert samples == {
        ("rto", "python3", ""): 2,
        ("rto", "", ""): 1,
        ("rto", 'a"b\\]c', "two\nlines = x"): 1,
    }
    assert set(families["sockpid_retransmits"].samples[0].labels) == {"kind", "comm", "env_NOTE"}
    assert [families[f"sockpid_{name}"].samples[0].value for name in ("lost", "confirmed", "missed")] == [1, 7, 2]
    (dropped,) = families["sockpid_output_dropped"].samples
    assert (dropped.labels, dropped.value) == ({"output": "file:/x"}, 3)
    buckets = [s for s in families["sockpid_srtt_seconds"].samples if s.name.endswith("_bucket")]
    assert [s.value for s in buckets][-1] == 4
    assert families["sockpid_srtt_seconds"].type == "histogram"


def test_prometheus_keeps_a_bounded_number_of_series() -> None:
    with exporter(["sport"], 10) as output:
        give(output, *(document(sport=port) for port in range(1000)))
        families = {family.name: family for family in text_string_to_metric_families(fetch(output))}
    samples = {s.labels["sport"]: s.value for s in families["sockpid_retransmits"].samples}
    assert len(samples) == 11
    assert samples[OTHER] == families["sockpid_series_overflow"].samples[0].value == 990
    assert sum(samples.values()) == 1000


def test_prometheus_listens_where_only_this_host_can_connect_unless_told_otherwise() -> None:
    """Who can connect can read which programs talk."""
    output, _ = open_output("prometheus", 1)
    assert isinstance(output, Prometheus)
    try:
        assert output._server.server_address == ("127.0.0.1", 9469)
    finally:
        output.close()


def test_prometheus_answers_others_with_404() -> None:
    with exporter([], 10) as output, pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(output, "/")


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP, after it has answered with each of `answers`: (status, headers, body)."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.got: list[tuple[str, bytes]] = []
        self.headers: list[Any] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def seen(self) -> list[int]:
        """Sequence numbers of the log records that were accepted."""
        found: list[int] = []
        for path, body in self.got:
            if path == "/v1/logs":
                request = json_format.Parse(body, ExportLogsServiceRequest())
                for record in request.resource_logs[0].scope_logs[0].log_records:
                    found += [a.value.int_value for a in record.attributes if a.key == "sockpid.seq"]
        return found

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(self.headers)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, headers, answer = self.server.answers.pop(0) if self.server.answers else (200, {}, b"{}")
        if status == 200:
            self.server.got.append((self.path, body))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def otlp(url: str, spool: Path | None = None, limit: int = 1 << 20, **more: Any) -> Otlp:
    made = None if spool is None else Spool(str(spool), limit)
    return Otlp(url, ("logs", "metrics"), Metrics(("kind", "comm"), 100), made, **more)


def held(attribute: KeyValue) -> object:
    """The attribute's value, of whatever kind."""
    kind = attribute.value.WhichOneof("value")
    assert kind is not None, attribute
    return getattr(attribute.value, kind)


@pytest.mark.parametrize("compress", [False, True])
def test_otlp_is_what_the_protocol_says(compress: bool) -> None:
    """Parsed by the protocol's own messages; a field that they do not have is an error there."""
    with Collector() as collector:
        output = otlp(collector.url + "/", compress=compress, headers={"Authorization": "Bearer x"})
        give(output, document(**NASTY), unknown())
        output.status = {"raised": 3, "confirmed": 2, "missed": 5, "dropped:json": 2}
        output.close()
        assert [path for path, _ in collector.got] == ["/v1/logs", "/v1/metrics"]
        assert {h["Content-Type"] for h in collector.headers} == {"application/json"}
        assert {h["Authorization"] for h in collector.headers} == {"Bearer x"}
        logs = json_format.Parse(collector.got[0][1], ExportLogsServiceRequest())
        metrics = json_format.Parse(collector.got[1][1], ExportMetricsServiceRequest())
    (of_resource,) = logs.resource_logs
    resource = {a.key: a.value.string_value for a in of_resource.resource.attributes}
    assert (resource["service.name"], resource["host.name"]) == ("sockpid", os.uname().nodename)
    known, not_known = of_resource.scope_logs[0].log_records
    assert known.time_unix_nano == document()["ts_ns"]
    assert known.event_name == "sockpid.retransmit"
    values = {a.key: held(a) for a in known.attributes}
    assert values["process.pid"] == 4711
    assert values["network.peer.address"] == "10.0.0.2"
    assert values["sockpid.labels_env_NOTE"] == "two\nlines = x"
    assert values["sockpid.exited"] is False
    assert "process.pid" not in {a.key for a in not_known.attributes}
    found = {metric.name: metric for metric in metrics.resource_metrics[0].scope_metrics[0].metrics}
    sums = found["sockpid.retransmits"].sum.data_points
    points = {tuple(a.value.string_value for a in p.attributes): p.as_int for p in sums}
    assert points == {("rto", 'a"b\\]c'): 1, ("rto", ""): 1}
    assert found["sockpid.retransmits"].sum.is_monotonic
    assert found["sockpid.retransmits"].sum.aggregation_temporality == 2
    assert found["sockpid.events.confirmed"].sum.data_points[0].as_int == 2
    assert (found["sockpid.hooks.missed"].sum.data_points[0].as_int, found["sockpid.hooks.missed"].unit) == (5, "{run}")
    (histogram,) = found["sockpid.srtt"].histogram.data_points
    assert histogram.count == sum(histogram.bucket_counts) == 2
    assert len(histogram.bucket_counts) == len(histogram.explicit_bounds) + 1
    assert found["sockpid.output.dropped"].sum.data_points[0].as_int == 2


def test_otlp_calls_the_host_what_events_call_it() -> None:
    """It is the resource's; an event's attributes do not repeat it."""
    with Collector() as collector:
        every = Outputs([(otlp(collector.url), 10)], lambda _line: None)
        every.name_host("node-7")
        every.start()
        every.offer([document(host="node-7")])
        every.close(5)
        logs = json_format.Parse(collector.got[0][1], ExportLogsServiceRequest()).resource_logs
        metrics = json_format.Parse(collector.got[1][1], ExportMetricsServiceRequest()).resource_metrics
    for (of_resource,) in (logs, metrics):
        told = {a.key: a.value.string_value for a in of_resource.resource.attributes}
        assert told["host.name"] == "node-7"


@pytest.mark.parametrize(("status", "headers", "least", "most"), [
    (503, {}, 0.5, 1.0), (429, {"Retry-After": "7"}, 7, 7), (502, {"Retry-After": "100000"}, 300, 300),
    (504, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.5, 1.0),
])  # fmt: skip
def test_a_busy_collector_is_asked_again_later(status: int, headers: dict[str, str], least: float, most: float) -> None:
    with Collector() as collector:
        collector.answers.append((status, headers, b""))
        output = otlp(collector.url)
        pending = collections.deque([Record(document(seq=1))])
        with pytest.raises(Busy) as refused:
            output.write(pending)
        assert least <= refused.value.seconds <= most
        assert len(pending) == 1
        output.write(pending)
        assert (collector.seen(), len(pending), output.dropped) == ([1], 0, 0)
        output.close()


def test_pauses_grow_to_a_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    output = otlp(f"http://127.0.0.1:{port}")
    seconds: list[float] = []
    for _ in range(10):
        with pytest.raises(Busy) as refused:
            give(output, document())
        seconds.append(refused.value.seconds)
    assert seconds[0] <= 1.0
    assert 30 <= seconds[-1] <= 60
    output.close()


def test_what_the_collector_refuses_for_good_is_counted() -> None:
    said: list[str] = []
    with Collector() as collector:
        collector.answers = [(400, {}, b"bad"), (200, {}, b'{"partialSuccess": {"rejectedLogRecords": "2"}}')]
        output = otlp(collector.url)
        output.warn = said.append
        give(output, document(), document(), document())
        assert output.dropped == 3
        give(output, document(), document(), document())
        assert output.dropped == 5
        output.close()
    assert len(said) == 1
    assert "400" in said[0]


def test_the_queue_on_disk_survives_a_restart(tmp_path: Path) -> None:
    with Collector() as collector:
        port = collector.server_address[1]
    output = otlp(f"http://127.0.0.1:{port}", tmp_path / "q")
    every = Outputs([(output, 1000)], lambda _line: None)
    every.start()
    for start in (0, 10):
        every.offer([document(seq=number) for number in range(start, start + 10)])
    every.close()
    assert every.report()[0]["written"] == 20
    assert every.report()[0]["dropped"] == 0
    with Collector(port) as collector:
        again = Outputs([(otlp(collector.url, tmp_path / "q"), 1000)], lambda _line: None)
        again.start()
        again.offer([document(seq=20)])
        until(lambda: len(collector.seen()) == 21)
        again.close()
        assert sorted(collector.seen()) == list(range(21))
    assert os.listdir(tmp_path / "q") == []


def test_the_queue_on_disk_gives_up_the_oldest_and_counts_them(tmp_path: Path) -> None:
    with Collector() as collector:
        port = collector.server_address[1]
    output = otlp(f"http://127.0.0.1:{port}", tmp_path / "q", limit=30_000)
    for number in range(30):
        give(output, document(seq=number))
    kept = sum(int(re.findall(r"-(\d+)", name)[0]) for name in os.listdir(tmp_path / "q"))
    assert kept + output.dropped == 30
    assert 0 < kept < 30
    output.close()
    assert sum(file.stat().st_size for file in (tmp_path / "q").iterdir()) <= 30_000


def test_a_collector_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        output = otlp(f"http://127.0.0.1:{hanging.getsockname()[1]}", tmp_path / "q")
        every = Outputs([(output, 1000)], lambda _line: None)
        every.start()
        every.offer([document(seq=number) for number in range(10)])
        started = time.monotonic()
        every.close(0.9)
        assert time.monotonic() - started < 5
    (report,) = every.report()
    assert (report["written"], report["dropped"]) == (10, 0)
    again = Spool(str(tmp_path / "q"), 1 << 20)
    oldest = again.oldest()
    assert oldest is not None
    assert oldest.events == 10
    again.close()
