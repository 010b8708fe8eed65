"""Events and counts as OTLP requests in JSON. Pure.

The JSON encoding of Protocol Buffers as OTLP uses it: lower camel case, 64-bit integers as text, enums as numbers.
"""

from __future__ import annotations

import functools
import json
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Dict, List, Mapping, Sequence

from sockpid.event.text import Shape, flat, sentence, shape

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


def logs(of: Json, version: str, documents: Sequence[Mapping[str, Any]], observed_ns: int) -> bytes:
    """An ExportLogsServiceRequest, encoded: most of an event's text is the same for all, so that it is put together
    here from pieces that are ready."""
    scope = json.dumps({"name": "sockpid", "version": version})
    records = ",".join([_record(document, observed_ns) for document in documents])
    scopes = f'[{{"scope":{scope},"logRecords":[{records}]}}]'
    return f'{{"resourceLogs":[{{"resource":{json.dumps(of)},"scopeLogs":{scopes}}}]}}'.encode()


def _record(document: Mapping[str, Any], observed_ns: int) -> str:
    fields = flat(document)
    found = shape(fields)
    strings, integers, flags = found.values(fields)
    attributes = _template(found, document["family"]) % (*map(quoted, strings), *integers, *flags)
    return (
        f'{{"timeUnixNano":"{document["ts_ns"]}","observedTimeUnixNano":"{observed_ns}",'
        f'"severityNumber":{SEVERITY_INFO},"severityText":"INFO","eventName":"sockpid.retransmit",'
        f'"body":{{"stringValue":{quoted(sentence(document))}}},"attributes":[{attributes}]}}'
    )


@functools.lru_cache(maxsize=256)
def _template(of: Shape, family: str) -> str:
    """The attributes of an event, up to its values."""
    kinds = ((of.strings, '"stringValue":%s'), (of.integers, '"intValue":"%d"'), (of.flags, '"boolValue":%s'))
    pieces = [
        "%.0s" if name in OMITTED else f'{{"key":{_key(name).replace("%", "%%")},"value":{{{value}}}}},'
        for names, value in kinds
        for name in names
    ]
    if family in NETWORK_TYPE:
        pieces.append(json.dumps(_attribute("network.type", NETWORK_TYPE[family])) + ",")
    pieces.append(json.dumps(_attribute("network.transport", "tcp")))
    return "".join(pieces)


def _key(name: str) -> str:
    return quoted(RENAMED.get(name, "sockpid." + name))


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
            if name == "missed":
                found.append(_sum("sockpid.hooks.missed", "Runs of hooks that were passed over", "{run}", [point]))
            else:
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


def _attribute(key: str, value: str) -> Json:
    return {"key": key, "value": {"stringValue": value}}
