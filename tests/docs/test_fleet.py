"""The examples for many hosts say only what sockpid really serves, and what their programs understand.

promtool judges what is Prometheus', and test_prometheus.py runs it; Grafana's own model of a dashboard reads ours;
test_kafka.py runs rsyslog. The OpenTelemetry collector, Vector and Fluent Bit cannot be had as programs where the tests
run: of their files the syntax is read, names and options are looked up, and what they are given is checked elsewhere
(OTLP against OpenTelemetry's messages in tests/unit/outputs/test_wire.py and, on demand, by the collector in
test_collector.py; JSON lines against docs/events.schema.json). Of Vector the language of its transforms can be had, and
runs the example's; of both the Kafka client.
"""

from __future__ import annotations

import configparser
import ctypes.util
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
from sockpid.outputs.otlp_json import RENAMED
from sockpid.outputs.prometheus import Prometheus
from sockpid.outputs.spec import open_output
from tests.streams import document, unknown
from tests.unit.outputs.test_wire import NASTY
from tests.vm.packages import PackageError

from . import kafka, prometheus
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


def test_names_of_opentelemetry_are_documented() -> None:
    text = (ROOT / "docs/outputs.md").read_text()
    found = text[text.index("Keys that OpenTelemetry's") :]
    assert set(re.findall(r"`([a-z0-9_.]+)`", found)) == {*RENAMED.values(), "host", "host.name"}


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


VECTOR = {
    "file": {
        "acknowledgements", "data_dir", "encoding", "exclude", "file_key", "fingerprint", "glob_minimum_cooldown_ms",
        "host_key", "ignore_checkpoints", "ignore_not_found", "ignore_older_secs", "include", "line_delimiter",
        "max_line_bytes", "max_read_bytes", "multiline", "offset_key", "oldest_first", "read_from", "remove_after_secs",
    },
    "remap": {"drop_on_abort", "drop_on_error", "file", "files", "reroute_dropped", "source", "timezone"},
    "kafka": {
        "acknowledgements", "batch", "bootstrap_servers", "buffer", "compression", "encoding", "headers_key",
        "key_field", "librdkafka_options", "message_timeout_ms", "sasl", "socket_timeout_ms", "tls", "topic",
    },
}  # fmt: skip
"""What options its components have, by Vector's reference (website/cue/reference/components), but deprecated ones."""


def test_vector_reads_what_is_written() -> None:
    text = (EXAMPLES / "vector.toml").read_text()
    vector: dict[str, Any] = tomllib.loads(text)
    assert vector.keys() == {"data_dir", "sources", "transforms", "sinks"}
    (source,), (transform,), (sink,) = (vector[part].values() for part in ("sources", "transforms", "sinks"))
    for component in (source, transform, sink):
        assert component.keys() - {"type", "inputs"} <= VECTOR[component["type"]]
    assert source["include"] == [log_file(text)]
    assert transform["inputs"] == list(vector["sources"])
    assert sink["inputs"] == list(vector["transforms"])
    assert sink["encoding"] == {"codec": "raw_message"}, "the field `message`, as the source read it"
    assert sink["key_field"] in document()


def test_vectors_language_names_the_host_and_leaves_the_line() -> None:
    pyvrl = pytest.importorskip("pyvrl", reason="VRL is packaged for Python 3.10 to 3.12")
    vector = tomllib.loads((EXAMPLES / "vector.toml").read_text())
    (transform,), (sink,) = vector["transforms"].values(), vector["sinks"].values()
    program = pyvrl.Transform(transform["source"] + "\n.")  # what Vector passes on, and pyvrl only if it comes last
    for event in (document(), document(**NASTY), document(start_ns=2**64 - 1), unknown(), gap("node-7", 112).document):
        line = {"message": json.dumps(event), "file": "/var/log/sockpid/events.jsonl", "host": "another",
                "source_type": "file", "timestamp": "2026-11-22T15:02:48Z"}  # fmt: skip
        assert program.remap(line) == {**line, sink["key_field"]: event["host"]}
    with pytest.raises(ValueError, match="unable to parse json"):
        program.remap({"message": "{"})
    with pytest.raises(ValueError, match="undefined function"):
        pyvrl.Transform(transform["source"].replace("parse_json", "parse_jsn"))


FLUENT_BIT = {
    "tail": {
        "buffer_chunk_size", "buffer_max_size", "db", "db.compare_filename", "db.journal_mode", "db.locking", "db.sync",
        "docker_mode", "docker_mode_flush", "docker_mode_parser", "event_batch_size", "exclude_path", "exit_on_eof",
        "file_cache_advise", "generic.encoding", "ignore_active_older_files", "ignore_older", "inotify_watcher", "key",
        "multiline", "multiline.parser", "multiline_flush", "offset_key", "parser", "parser_firstline", "path",
        "path_key", "progress_check_interval", "progress_check_interval_nsec", "read_from_head",
        "read_newly_discovered_files_from_head", "refresh_interval", "rotate_wait", "skip_empty_lines",
        "skip_long_lines", "static_batch_size", "tag_regex", "truncate_long_lines", "unicode.encoding",
        "watcher_interval",
    },
    "parser": {"key_name", "parser", "preserve_key", "reserve_data"},
    "kafka": {
        "aws_msk_iam_cluster_arn", "brokers", "client_id", "dynamic_topic", "format", "gelf_full_message_key",
        "gelf_host_key", "gelf_level_key", "gelf_short_message_key", "gelf_timestamp_key", "group_id", "message_key",
        "message_key_field", "queue_full_retries", "raw_log_key", "schema_id", "schema_str", "timestamp_format",
        "timestamp_key", "topic_key", "topics",
    },
}  # fmt: skip
"""What options its plugins have, by the config_map of plugins/in_tail/tail.c, filter_parser/filter_parser.c and
out_kafka/kafka.c of Fluent Bit."""
FLUENT_BIT_ALL = {"name", "tag", "match", "retry_limit", "storage.type", "storage.total_limit_size"}
"""Those that every plugin has."""


def test_fluent_bit_reads_what_is_written() -> None:
    text = (EXAMPLES / "fluent-bit.conf").read_text()
    sections = fluent_bit(text)
    assert [name for name, _ in sections] == ["SERVICE", "INPUT", "FILTER", "OUTPUT"]
    service, source, filtered, sink = (values for _, values in sections)
    for plugin in (source, filtered, sink):
        own = {key for key in plugin if not key.startswith("rdkafka.")}
        assert own <= FLUENT_BIT[plugin["name"]] | FLUENT_BIT_ALL
    assert source["path"] == log_file(text)
    assert source["tag"] == filtered["match"] == sink["match"]
    assert source.get("key", "log") == filtered["key_name"] == sink["raw_log_key"], "where a line is as it was written"
    assert (filtered["preserve_key"], filtered["reserve_data"], sink["format"]) == ("On", "On", "raw")
    assert sink["message_key_field"] in document()
    parsers = fluent_bit((EXAMPLES / service["parsers_file"]).read_text())
    assert parsers == [("PARSER", {"name": filtered["parser"], "format": "json"})]


def test_kafkas_client_has_the_options_that_are_set() -> None:
    """Both programs pass them on to librdkafka, which is asked itself."""
    sink = next(values for name, values in fluent_bit((EXAMPLES / "fluent-bit.conf").read_text()) if name == "OUTPUT")
    options = {key[len("rdkafka.") :]: value for key, value in sink.items() if key.startswith("rdkafka.")}
    if ctypes.util.find_library("rdkafka") is None:
        pytest.skip("librdkafka is not installed (Debian package librdkafka1)")
    (vectors,) = tomllib.loads((EXAMPLES / "vector.toml").read_text())["sinks"].values()
    theirs = {"message.timeout.ms": str(vectors["message_timeout_ms"]), "compression.codec": vectors["compression"]}
    assert options.keys() > theirs.keys()
    assert [kafka.refused(options), kafka.refused(theirs)] == ["", ""]
    assert "No such configuration property" in kafka.refused({**options, "message.timeout": "0"})
    assert "message.timeout.ms" in kafka.refused({**options, "message.timeout.ms": "1", "linger.ms": "1000"})


def fluent_bit(text: str) -> list[tuple[str, dict[str, str]]]:
    """Fluent Bit's classic configuration: sections, and "Key value" lines, whose keys are the same in any case."""
    parser = configparser.ConfigParser(delimiters=(" ",), interpolation=None, comment_prefixes=("#",))
    parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    return [(name, {key: value.strip() for key, value in parser[name].items()}) for name in parser.sections()]


def test_every_example_is_looked_at() -> None:
    """By a test here, or as a program that other tests compile."""
    here = Path(__file__).read_text() + Path(__file__).with_name("test_kafka.py").read_text()
    for each in EXAMPLES.iterdir():
        in_others = each.suffix in {".c", ".rs", ".py", ".patch", ".md"}  # test_examples.py
        assert in_others or each.name in here or each.name == "fluent-bit-parsers.conf"
