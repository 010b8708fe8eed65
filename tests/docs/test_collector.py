"""The OpenTelemetry collector takes what sockpid sends, with the example's pipelines, and passes it on unharmed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from sockpid.outputs import Outputs
from tests.streams import document, unknown
from tests.unit.outputs.test_wire import NASTY, Collector, held, until
from tests.vm.packages import PackageError

from . import collector
from .page import ROOT

pytestmark = [
    pytest.mark.download,
    pytest.mark.skipif(
        not os.environ.get("SOCKPID_COLLECTOR"), reason="builds the collector, 350 MB and minutes: make collector"
    ),
]
EXAMPLE = ROOT / "docs/examples/otel-collector.yaml"
ADDED = ROOT / "docs/examples/otel-collector-contrib.yaml"
ENVIRONMENT = {**os.environ, "OTLP_TOKEN": "secret"}
CONTRIBUTED = {"attributes", "prometheusremotewrite", "file_storage"}
"""Of the addition, what is not of the collector's core: it is not in Debian."""


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return collector.program()
    except PackageError as error:
        pytest.skip(f"the collector's source cannot be had: {error}")


def validated(program: Path, *paths: Path) -> list[str]:
    """What the collector says is wrong with configurations, each added to those before it."""
    command: list[str | Path] = [program, "validate", *(f"--config={path}" for path in paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    told = done.stderr.partition("\n20")[0]  # it says everything twice, the second time with the date
    return [line.strip() for line in told.splitlines()[1:] if line.strip()]


def test_the_example_is_valid_as_it_is(program: Path, tmp_path: Path) -> None:
    assert validated(program, EXAMPLE) == []
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(EXAMPLE.read_text().replace("send_batch_size", "send_batch_sise"))
    assert "send_batch_sise" in "".join(validated(program, wrong))


def test_of_the_addition_only_what_is_contributed_is_unknown(program: Path, tmp_path: Path) -> None:
    said = validated(program, EXAMPLE, ADDED)
    assert {line.split('unknown type: "')[1].partition('"')[0] for line in said} == CONTRIBUTED, said
    added: dict[str, Any] = yaml.safe_load(ADDED.read_text())
    # Without these once more: of one part it tells one mistake.
    for part in ("processors", "exporters", "extensions"):
        added[part] = {name: what for name, what in added[part].items() if name.partition("/")[0] not in CONTRIBUTED}
    del added["service"]
    rest = tmp_path / "rest.yaml"
    rest.write_text(yaml.safe_dump(added))
    assert validated(program, EXAMPLE, rest) == []


def configuration(url: str, port: int) -> dict[str, Any]:
    """The example's, to a place of ours, sooner."""
    whole: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    whole["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = f"127.0.0.1:{port}"
    whole["processors"]["batch"]["timeout"] = "200ms"
    whole["exporters"]["otlp_http"].update(endpoint=url, encoding="json")
    whole["service"]["telemetry"] = {"metrics": {"level": "none"}}
    return whole


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        number: int = unused.getsockname()[1]
    return number


@pytest.mark.parametrize("compress", ["gzip", "none"])
def test_events_and_counts_arrive_behind_it(program: Path, tmp_path: Path, port: int, compress: str) -> None:
    """It is started after the first events were offered: they are sent again."""
    said: list[str] = []
    with Collector() as behind:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration(behind.url, port)))
        outputs = Outputs.open([f"otlp:http://127.0.0.1:{port},interval=1s,compress={compress}"], said.append)
        outputs.start()
        outputs.status({"raised": 3, "delivered": 3, "lost": 0, "evicted": 0})
        outputs.offer([document(), unknown()])
        until(lambda: bool(said))
        with subprocess.Popen(
            [program, f"--config={tmp_path}/config.yaml"], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as daemon:
            try:
                outputs.offer([document(**NASTY)])
                until(lambda: len(logs(behind)) == 3 and any(path == "/v1/metrics" for path, _ in behind.got))
                time.sleep(1.5)  # another round of counts
                outputs.close()
            finally:
                daemon.terminate()
                assert daemon.stderr is not None
                complaints = [line for line in daemon.stderr if "\twarn\t" in line or "\terror\t" in line]
    assert [report["dropped"] for report in outputs.report()] == [0]
    assert not complaints
    first, second, third = logs(behind)
    assert first["process.pid"] == 4711
    assert "process.pid" not in second
    assert second["sockpid.reason"] == "older-than-probe"
    assert third["sockpid.labels_env_NOTE"] == "two\nlines = x"
    last = json_format.Parse(
        [body for path, body in behind.got if path == "/v1/metrics"][-1], ExportMetricsServiceRequest()
    )
    of_resource = last.resource_metrics[-1]
    assert {a.key: a.value.string_value for a in of_resource.resource.attributes}["service.name"] == "sockpid"
    found = {metric.name: metric for metric in of_resource.scope_metrics[0].metrics}
    assert sum(point.as_int for point in found["sockpid.retransmits"].sum.data_points) == 3
    assert found["sockpid.srtt"].histogram.data_points[0].count == 3


def logs(behind: Collector) -> list[dict[str, Any]]:
    """The attributes of all log records."""
    found: list[dict[str, Any]] = []
    for path, body in behind.got:
        if path == "/v1/logs":
            for of_resource in json_format.Parse(body, ExportLogsServiceRequest()).resource_logs:
                for record in of_resource.scope_logs[0].log_records:
                    values = {a.key: held(a) for a in record.attributes}
                    assert record.time_unix_nano
                    assert record.event_name == "sockpid.retransmit"
                    found.append(values)
    return found
