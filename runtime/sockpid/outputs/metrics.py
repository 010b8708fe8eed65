"""Counts of events by labels that somebody chose, in bounded memory."""

from __future__ import annotations

import threading
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from .arguments import Arguments

CHOICES = (
    "kind", "comm", "pid", "saddr", "sport", "daddr", "dport", "family", "netns", "state", "how", "reason", "doubt",
    "cgroup", "ulp", "host", "unit", "container_id", "pod_uid",
)  # fmt: skip
"""Keys that may be labels, besides env.NAME."""

OTHER = "__other__"
"""Every label's value in the one series that takes what came after `limit` series were there."""

RTT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the histogram of round trip times, in seconds."""

Values = Tuple[str, ...]


class Snapshot(NamedTuple):
    """series: label values -> events. overflow: events in the OTHER series. rtt: events per bucket, the last without a
    bound, and the sum in seconds."""

    series: Dict[Values, int]
    overflow: int
    rtt: List[int]
    rtt_sum: float


class Metrics:
    def __init__(self, labels: Tuple[str, ...], limit: int) -> None:
        self.labels = labels
        self._limit = limit
        self._lock = threading.Lock()
        self._series: Dict[Values, int] = {}
        self._overflow = 0
        self._other = (OTHER,) * len(labels)
        self._rtt = [0] * (len(RTT_BOUNDS) + 1)
        self._rtt_sum = 0.0

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Metrics:
        labels = arguments.words("labels", "kind+comm")
        for label in labels:
            if label not in CHOICES and not (label.startswith("env.") and len(label) > 4):
                raise arguments.wrong(f"labels={label} is none of {', '.join(CHOICES)}, env.NAME")
        return cls(labels, arguments.number("series", 1000))

    def add(self, documents: List[Dict[str, Any]]) -> None:
        with self._lock:
            for document in documents:
                values = tuple([_text(_value(document, label)) for label in self.labels])
                count = self._series.get(values)
                if count is None and len(self._series) >= self._limit:
                    self._overflow += 1
                else:
                    self._series[values] = (count or 0) + 1
                seconds = document["srtt_us"] / 1e6
                if seconds:
                    self._rtt[_bucket(seconds)] += 1
                    self._rtt_sum += seconds

    def snapshot(self) -> Snapshot:
        with self._lock:
            series = dict(self._series)
            if self._overflow:
                series[self._other] = series.get(self._other, 0) + self._overflow
            return Snapshot(series, self._overflow, list(self._rtt), self._rtt_sum)

    def label_names(self) -> Tuple[str, ...]:
        """As a label may be called: letters, digits and "_"."""
        return tuple("".join(c if c.isascii() and c.isalnum() else "_" for c in label) for label in self.labels)


def _value(document: Mapping[str, Any], label: str) -> Any:
    if label in document:
        return document[label]
    labels = document.get("labels") or {}
    return (labels.get("env") or {}).get(label[4:]) if label.startswith("env.") else labels.get(label)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _bucket(seconds: float) -> int:
    for number, bound in enumerate(RTT_BOUNDS):
        if seconds <= bound:
            return number
    return len(RTT_BOUNDS)
