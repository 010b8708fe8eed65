"""Prometheus itself, from Debian's archive: it fetches from endpoints of ours, its alerts go off for the host that
stands out, and it answers every query of the dashboard.

Rules and queries are those of docs/examples; only times are short: an alert's `for`, and how often is fetched.
"""

from __future__ import annotations

import collections
import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockpid.outputs import Record
from sockpid.outputs.metrics import Metrics
from sockpid.outputs.prometheus import Prometheus
from tests.streams import document, unknown
from tests.vm.packages import PackageError

from . import prometheus
from .page import ROOT
from .test_fleet import queries

pytestmark = pytest.mark.download

EXAMPLES = ROOT / "docs/examples"
HOSTS = 5
BAD = 3


class Server:
    """A running Prometheus."""

    def __init__(self, directory: Path, targets: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            place = f"127.0.0.1:{unused.getsockname()[1]}"
        self._url = f"http://{place}/api/v1/"
        config = (EXAMPLES / "prometheus.yml").read_text()
        config = re.sub(r"(scrape|evaluation)_interval: \S+", r"\1_interval: 1s", config)
        config = re.sub(r"targets: .*", f"targets: {json.dumps(targets)}", config)
        (directory / "prometheus.yml").write_text(config)
        rules = (EXAMPLES / "prometheus-rules.yml").read_text()
        (directory / "prometheus-rules.yml").write_text(re.sub(r"\bfor: \S+", "for: 2s", rules))
        self.process = subprocess.Popen(
            [prometheus.program("prometheus"), f"--config.file={directory}/prometheus.yml",
             f"--storage.tsdb.path={directory}/data", f"--web.listen-address={place}", "--log.level=warn"],
            stderr=subprocess.PIPE, text=True, cwd=directory,
        )  # fmt: skip

    def ask(self, what: str, **arguments: str) -> Any:
        """The data of an answer. Raises OSError if there is none."""
        with urllib.request.urlopen(f"{self._url}{what}?{urllib.parse.urlencode(arguments)}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def firing(self) -> set[tuple[str, str]]:
        """Alerts that have gone off, each with whom it is about."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }


def until(condition: Callable[[], Any], between: Callable[[], None] = lambda: None) -> None:
    """between: done once a second meanwhile."""
    for turn in range(600):
        try:
            if condition():
                return
        except OSError:  # it is not there yet
            pass
        if turn % 10 == 0:
            between()
        time.sleep(0.1)
    raise AssertionError("it never came true")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[Prometheus]]]:
    """A server and the endpoints of five hosts, the fourth of which stands out."""
    try:
        prometheus.program("prometheus")
    except PackageError as error:
        pytest.skip(f"Prometheus cannot be had: {error}")
    outputs = [Prometheus("127.0.0.1", 0, Metrics(("kind", "comm"), 1000)) for _ in range(HOSTS)]
    targets = [f"127.0.0.1:{output.port}" for output in outputs]
    server = Server(tmp_path_factory.mktemp("prometheus"), targets)

    def retransmit() -> None:
        for number, output in enumerate(outputs):
            events = [document(comm="trainer", kind="tlp"), unknown()] * (2000 if number == BAD else 2)
            output.write(collections.deque(map(Record, events)))

    try:
        for output in outputs:
            output.status = {"raised": 4, "delivered": 4, "lost": 0, "evicted": 0, "dropped:table": 0}
            output.start()
        until(lambda: ("HostStandsOut", targets[BAD]) in server.firing(), retransmit)
        yield server, outputs
    finally:
        server.process.terminate()
        said = server.process.communicate(timeout=30)[1]
        for output in outputs:
            output.close()
        assert not [line for line in said.splitlines() if "Received SIGTERM" not in line]


def test_the_alert_goes_off_for_the_host_that_stands_out_and_no_other(
    watched: tuple[Server, list[Prometheus]],
) -> None:
    server, outputs = watched
    bad = f"127.0.0.1:{outputs[BAD].port}"
    until(lambda: {name for name, at in server.firing() if at == bad} >= {"HostStandsOut", "ProgramRetransmits"})
    others = {name for name, where in server.firing() if where != bad}
    assert others <= {"OwnersUnknown"}, "half of the events have no known owner, on every host"
    up = server.ask("query", query='up{job="sockpid"}')["result"]
    assert [sample["value"][1] for sample in up] == ["1"] * HOSTS
    assert {sample["metric"]["cluster"] for sample in up} == {"example"}
    for metric, kind in (("sockpid_retransmits_total", "counter"), ("sockpid_srtt_seconds", "histogram")):
        told = server.ask("metadata", metric=metric)[metric]
        assert {each["type"] for each in told} == {kind}


def test_every_query_of_the_dashboard_is_answered(watched: tuple[Server, list[Prometheus]]) -> None:
    server, _ = watched
    asked = 0
    for where, query in queries():
        if where == "variable":
            wanted = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
            assert wanted
            assert len(server.ask(f"label/{wanted[2]}/values", **{"match[]": wanted[1]})) == HOSTS
        elif where != "rules":
            whole = query.replace("$instance", ".*").replace("$__rate_interval", "1m").replace("$__range", "5m")
            assert "$" not in whole
            assert server.ask("query", query=whole)["result"], where
        asked += 1
    assert asked >= 15
