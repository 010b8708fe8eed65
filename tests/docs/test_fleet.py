"""The examples for many hosts say only what sockpid really serves, and what their programs understand.

promtool judges what is Prometheus', and test_prometheus.py runs it; Grafana's own model of a dashboard reads ours;
test_kafka.py runs rsyslog. The OpenTelemetry collector, Vector and Fluent Bit cannot be had as programs where the tests
run: of their files the syntax is read, names are looked up, and what they are given is checked elsewhere (OTLP against
OpenTelemetry's messages in tests/unit/test_outputs_wire.py and, on demand, by the collector in test_collector.py; JSON
lines against docs/events.schema.json). Of Vector the language of its transforms can be had, and runs the example's.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sockpid.outputs.base import gap
from sockpid.outputs.metrics import Metrics
from sockpid.outputs.prometheus import Prometheus
from sockpid.outputs.spec import open_output
from tests.streams import document, unknown
from tests.unit.test_outputs_wire import NASTY
from tests.vm.packages import PackageError

from . import prometheus
from .page import ROOT

tomllib = pytest.importorskip("tomllib", reason="reading TOML needs Python 3.11")

EXAMPLES = ROOT / "docs/examples"
ADDED = {"instance", "job", "le", "__name__"}
"""Labels that Prometheus adds, or the format has."""


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Every metric that the endpoint serves with the labels that the examples ask for, and its labels."""
    output = Prometheus("127.0.0.1", 0, Metrics(("kind", "comm"), 1000))
    try:
        output._metrics.add([document(), unknown()])
        output.status = {"raised": 2, "delivered": 2, "lost": 0, "evicted": 0, "dropped:table": 0}
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(output.text().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    finally:
        output.close()
    return found


def names_of(query: str) -> tuple[set[str], set[str]]:
    """The metrics and labels of a PromQL expression: those in braces, and those after by."""
    bare = re.sub(r'"[^"]*"', '""', query)
    labels = {name for part in re.findall(r"\{([^}]*)\}", bare) for name in re.findall(r"(\w+)\s*(?:=|!)", part)}
    labels |= {name.strip() for part in re.findall(r"\bby\s*\(([^)]*)\)", bare) for name in part.split(",")}
    labels |= {name.strip() for name in re.findall(r"label_values\([^,]*,([^)]*)\)", bare)}
    return set(re.findall(r"(?<![\w:])sockpid_\w+", bare)), labels


def queries() -> list[tuple[str, str]]:
    rules = yaml.safe_load((EXAMPLES / "prometheus-rules.yml").read_text())
    found = [("rules", rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    found += [(p["title"], target["expr"]) for p in dashboard["panels"] for target in p["targets"]]
    found += [("variable", v["query"]["query"]) for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return found


def test_queries_ask_for_what_is_served(served: dict[str, set[str]]) -> None:
    asked = set()
    for where, query in queries():
        metrics, labels = names_of(query)
        assert metrics <= served.keys(), where
        known = set().union(*(served[name] for name in metrics)) | ADDED if metrics else ADDED | {"comm"}
        assert labels <= known, f"{where}: {query}"
        asked |= metrics
    assert len(asked) >= 7
    assert "sockpid_nothing" in names_of("rate(sockpid_nothing[5m])")[0] - served.keys()


def test_recorded_names_are_used() -> None:
    rules = yaml.safe_load((EXAMPLES / "prometheus-rules.yml").read_text())
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in every if "record" in rule}
    used = {name for rule in every for name in re.findall(r"\w+:sockpid\w*:\w+", rule["expr"])}
    assert used == recorded


@pytest.mark.download
def test_prometheus_takes_rules_and_configuration() -> None:
    try:
        program = prometheus.program("promtool")
    except PackageError as error:
        pytest.skip(f"promtool cannot be had: {error}")
    for command in (["check", "rules", "prometheus-rules.yml"], ["check", "config", "prometheus.yml"],
                    ["test", "rules", "prometheus-rules-test.yml"]):  # fmt: skip
        done = subprocess.run([program, *command], cwd=EXAMPLES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_is_whole() -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 8
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps(dashboard)
    assert set(re.findall(r"\$\{?([a-z]\w*)\}?", text)) == variables
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_dashboard_is_what_grafana_says_a_dashboard_is() -> None:
    """Its model takes every key that it does not know away, so what it gives back holds all that the file has."""
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins", reason="Grafana's model needs Python 3.11")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    ours = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    assert missing(ours, json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))) == []
    odd = {**ours, "panels": [{**ours["panels"][0], "girdPos": {}}]}
    assert missing(odd, json.loads(JSONEncoder().encode(Dashboard.from_json(odd)))) == [".panels.0.girdPos"]


def missing(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """What of a document another one does not have, by path."""
    if isinstance(ours, dict | list):
        pairs = list(ours.items() if isinstance(ours, dict) else enumerate(ours))
        lost = [name for name, _ in pairs if not (name in theirs if isinstance(ours, dict) else name < len(theirs))]
        found = [missing(value, theirs[name], f"{where}.{name}") for name, value in pairs if name not in lost]
        return [f"{where}.{name}" for name in lost] + [path for each in found for path in each]
    return [] if ours == theirs else [where]


CONTRIBUTED = {"attributes/private", "prometheusremotewrite", "file_storage"}


@pytest.mark.parametrize("added", [False, True], ids=["core", "with-contrib"])
def test_collector_pipelines_are_made_of_what_is_defined(added: bool) -> None:
    collector = yaml.safe_load((EXAMPLES / "otel-collector.yaml").read_text())
    if added:
        merge(collector, yaml.safe_load((EXAMPLES / "otel-collector-contrib.yaml").read_text()))
    parts = ("receivers", "processors", "exporters")
    assert collector.keys() == {*parts, "service"} | ({"extensions"} if added else set())
    for name, pipeline in collector["service"]["pipelines"].items():
        assert name in {"logs", "metrics"}
        for part in parts:
            assert set(pipeline[part]) <= collector[part].keys(), (name, part)
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
    used = {
        each for pipeline in collector["service"]["pipelines"].values() for part in pipeline.values() for each in part
    }
    assert used == {each for part in parts for each in collector[part]}
    assert collector["service"].get("extensions", []) == list(collector.get("extensions", {}))
    assert (used | set(collector.get("extensions", {}))) & CONTRIBUTED == (CONTRIBUTED if added else set())
    output, _ = open_output("otlp", 1)
    endpoint = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert output.name == f"otlp:http://{endpoint}"
    output.close()


def merge(whole: dict[str, Any], added: dict[str, Any]) -> None:
    """As the collector does with one --config after another: mappings are merged, lists replaced."""
    for name, value in added.items():
        if isinstance(value, dict) and name in whole:
            merge(whole[name], value)
        else:
            whole[name] = value


def log_file(text: str) -> str:
    """Where the comment at the top of a file has events written."""
    found = re.search(r"--output file:(\S+)", text.splitlines()[0])
    assert found
    return found[1]


def test_vector_reads_what_is_written() -> None:
    text = (EXAMPLES / "vector.toml").read_text()
    vector: dict[str, Any] = tomllib.loads(text)
    assert vector.keys() == {"data_dir", "sources", "transforms", "sinks"}
    (source,), (transform,), (sink,) = (vector[part].values() for part in ("sources", "transforms", "sinks"))
    assert source["include"] == [log_file(text)]
    assert source.keys() == {"type", "include", "read_from", "fingerprint"}
    assert transform["inputs"] == list(vector["sources"])
    assert sink["inputs"] == list(vector["transforms"])
    assert sink.keys() == {
        "type", "inputs", "bootstrap_servers", "topic", "key_field", "compression", "encoding", "acknowledgements",
        "buffer",
    }  # fmt: skip
    assert sink["key_field"] in document().keys() & gap("node-1", 1).document.keys()


def test_vectors_language_gives_every_event_back() -> None:
    """What the file source adds is gone, and no number has changed."""
    pyvrl = pytest.importorskip("pyvrl", reason="VRL is packaged for Python 3.10 to 3.12")
    vector = tomllib.loads((EXAMPLES / "vector.toml").read_text())
    (transform,) = vector["transforms"].values()
    program = pyvrl.Transform(transform["source"])
    gap_of_it = gap("node-1", 112).document
    for event in (document(), document(**NASTY), document(start_ns=2**63 - 1), unknown(), gap_of_it):
        line = {"message": json.dumps(event), "file": "/var/log/sockpid/events.jsonl", "host": "another",
                "source_type": "file", "timestamp": "2026-11-22T15:02:48Z"}  # fmt: skip
        assert program.remap(line) == event
    with pytest.raises(ValueError, match="unable to parse json"):
        program.remap({"message": "{"})
    with pytest.raises(ValueError, match="undefined function"):
        pyvrl.Transform(transform["source"].replace("parse_json", "parse_jsn"))


def test_fluent_bit_reads_what_is_written() -> None:
    text = (EXAMPLES / "fluent-bit.conf").read_text()
    sections = fluent_bit(text)
    assert [name for name, _ in sections] == ["SERVICE", "INPUT", "OUTPUT"]
    service, source, sink = (values for _, values in sections)
    assert source["path"] == log_file(text)
    assert source["tag"] == sink["match"]
    assert sink["message_key_field"] in document().keys() & gap("node-1", 1).document.keys()
    parsers = fluent_bit((EXAMPLES / service["parsers_file"]).read_text())
    assert [values["name"] for _, values in parsers] == [source["parser"]]
    assert source.keys() == {"name", "tag", "path", "parser", "read_from_head", "db", "buffer_max_size", "storage.type"}
    assert sink.keys() == {
        "name", "match", "brokers", "topics", "format", "message_key_field", "rdkafka.compression.codec",
    }  # fmt: skip


def fluent_bit(text: str) -> list[tuple[str, dict[str, str]]]:
    """Fluent Bit's classic configuration: sections, and "Key value" lines, whose keys are the same in any case."""
    parser = configparser.ConfigParser(delimiters=(" ",), interpolation=None, comment_prefixes=("#",))
    parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    return [(name, {key: value.strip() for key, value in parser[name].items()}) for name in parser.sections()]


def test_every_example_is_looked_at() -> None:
    """By a test here, or as a program that other tests compile."""
    here = Path(__file__).read_text() + Path(__file__).with_name("test_kafka.py").read_text()
    for each in EXAMPLES.iterdir():
        assert each.suffix in {".c", ".rs"} or each.name in here or each.name == "fluent-bit-parsers.conf"
