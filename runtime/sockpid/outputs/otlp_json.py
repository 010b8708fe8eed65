"""Events and counts as OTLP requests in JSON. Pure.

The JSON encoding of Protocol Buffers as OTLP uses it: lower camel case, 64-bit integers as text, enums as numbers.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from sockpid.words import fields, sentence

from .metrics import RTT_BOUNDS, Snapshot

SEVERITY_INFO = 9  # opentelemetry/proto/logs/v1/logs.proto
CUMULATIVE = 2  # AGGREGATION_TEMPORALITY_CUMULATIVE, metrics.proto

RENAMED = {
    "pid": "process.pid",
    "comm": "process.executable.name",
    "saddr": "network.local.address",
    "sport": "network.local.port",
    "daddr": "network.peer.address",
    "dport": "network.peer.port",
    "labels_container_id": "container.id",
    "labels_pod_uid": "k8s.pod.uid",
    "labels_cmdline": "process.command_line",
}
"""Keys of an event that OpenTelemetry's semantic conventions have a name for; the others are sockpid.KEY."""

NETWORK_TYPE = {"inet": "ipv4", "inet6": "ipv6"}
OMITTED = {"schema", "ts_ns", "host"}

Json = Dict[str, Any]


def resource(host: str, version: str) -> Json:
    return {
        "attributes": [
            _attribute("service.name", "sockpid"),
            _attribute("service.version", version),
            _attribute("host.name", host),
            _attribute("os.type", "linux"),
        ]
    }


def logs(of: Json, version: str, documents: Sequence[Mapping[str, Any]], observed_ns: int) -> Json:
    """An ExportLogsServiceRequest."""
    records = [_record(document, observed_ns) for document in documents]
    scope = {"name": "sockpid", "version": version}
    return {"resourceLogs": [{"resource": of, "scopeLogs": [{"scope": scope, "logRecords": records}]}]}


def _record(document: Mapping[str, Any], observed_ns: int) -> Json:
    attributes = [_attribute("network.transport", "tcp")]
    kind = NETWORK_TYPE.get(document["family"])
    if kind:
        attributes.append(_attribute("network.type", kind))
    for name, _ in fields(document):
        if name not in OMITTED:
            attributes.append(_attribute(RENAMED.get(name, "sockpid." + name), _at(document, name)))
    return {
        "timeUnixNano": str(document["ts_ns"]),
        "observedTimeUnixNano": str(observed_ns),
        "severityNumber": SEVERITY_INFO,
        "severityText": "INFO",
        "eventName": "sockpid.retransmit",
        "body": {"stringValue": sentence(document)},
        "attributes": attributes,
    }


def _at(document: Mapping[str, Any], name: str) -> Any:
    """The value of a flattened key, with its type."""
    if name in document:
        return document[name]
    for key, value in document.items():
        if isinstance(value, dict) and name.startswith(key + "_"):
            return _at(value, name[len(key) + 1 :])
    raise KeyError(name)


def metrics(
    of: Json,
    version: str,
    labels: Sequence[str],
    now: Snapshot,
    status: Mapping[str, int],
    started_ns: int,
    now_ns: int,
) -> Json:
    """An ExportMetricsServiceRequest: the counts since `started_ns`."""
    when = {"startTimeUnixNano": str(started_ns), "timeUnixNano": str(now_ns)}
    points = [
        {**when, "asInt": str(count), "attributes": [_attribute(n, v) for n, v in zip(labels, values)]}
        for values, count in sorted(now.series.items())
    ]
    found = [_sum("sockpid.retransmits", "Retransmits, by the labels that were chosen", "{retransmit}", points)]
    overflow = [{**when, "asInt": str(now.overflow), "attributes": []}]
    found.append(_sum("sockpid.series.overflow", "Retransmits counted as __other__", "{retransmit}", overflow))
    for name, value in status.items():
        if not name.startswith("dropped:"):
            point = {**when, "asInt": str(value), "attributes": []}
            found.append(_sum(f"sockpid.events.{name}", f"Events {name}", "{event}", [point]))
    dropped = [
        {**when, "asInt": str(value), "attributes": [_attribute("output", name[8:])]}
        for name, value in status.items()
        if name.startswith("dropped:")
    ]
    if dropped:
        found.append(_sum("sockpid.output.dropped", "Events that an output could not deliver", "{event}", dropped))
    histogram = {
        **when,
        "count": str(sum(now.rtt)),
        "sum": now.rtt_sum,
        "bucketCounts": [str(count) for count in now.rtt],
        "explicitBounds": list(RTT_BOUNDS),
        "attributes": [],
    }
    found.append(
        {
            "name": "sockpid.srtt",
            "description": "Smoothed round trip time of the socket at a retransmit",
            "unit": "s",
            "histogram": {"dataPoints": [histogram], "aggregationTemporality": CUMULATIVE},
        }
    )
    scope = {"name": "sockpid", "version": version}
    return {"resourceMetrics": [{"resource": of, "scopeMetrics": [{"scope": scope, "metrics": found}]}]}


def _sum(name: str, description: str, unit: str, points: List[Json]) -> Json:
    total = {"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": True}
    return {"name": name, "description": description, "unit": unit, "sum": total}


def _attribute(key: str, value: Any) -> Json:
    return {"key": key, "value": _any(value)}


def _any(value: Any) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
