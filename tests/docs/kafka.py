"""A Kafka broker for tests: the one that librdkafka, the client that rsyslog and kcat use, brings for its own tests.

It speaks Kafka's protocol and keeps what it is given in memory. Run as a program it says its address and waits.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
from typing import Any, Mapping

TOPIC = "sockpid"
PRODUCER = 0
PRODUCE = ctypes.c_int16(0)
NOT_ENOUGH_REPLICAS = 19
QUIET = b"2"
"""Of syslog's levels, critical: it is no news that the handle that owns the broker is connected to none."""


def refused(options: Mapping[str, str]) -> str:
    """What librdkafka says to a producer with these options; "" if it takes them all together."""
    lib = ctypes.CDLL("librdkafka.so.1")
    lib.rd_kafka_conf_new.restype = lib.rd_kafka_new.restype = ctypes.c_void_p
    why = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(lib.rd_kafka_conf_new())
    for name, value in options.items():
        if lib.rd_kafka_conf_set(settings, name.encode(), value.encode(), why, len(why)):
            lib.rd_kafka_conf_destroy(settings)
            return why.value.decode()
    handle = ctypes.c_void_p(lib.rd_kafka_new(PRODUCER, settings, why, len(why)))
    if not handle:
        lib.rd_kafka_conf_destroy(settings)
        return why.value.decode()
    lib.rd_kafka_destroy(handle)
    return ""


class Broker:
    """The only broker of a cluster, with one topic."""

    def __init__(self, partitions: int = 3) -> None:
        self._lib = ctypes.CDLL("librdkafka.so.1")
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        why = ctypes.create_string_buffer(512)
        settings = ctypes.c_void_p(self._lib.rd_kafka_conf_new())
        self._lib.rd_kafka_conf_set(settings, b"log_level", QUIET, why, len(why))
        self._handle = ctypes.c_void_p(self._lib.rd_kafka_new(PRODUCER, settings, why, len(why)))
        assert self._handle, why.value
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, 1))
        self.address: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        assert self._lib.rd_kafka_mock_topic_create(self._cluster, TOPIC.encode(), partitions, 1) == 0

    def down(self) -> None:
        """Ends all connections and takes no new ones. What it was given it has still."""
        assert self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def up(self) -> None:
        """Listens again, at the same address."""
        assert self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def refuse(self) -> None:
        """Answers that there are not enough replicas, to a thousand requests to take messages."""
        errors = (ctypes.c_int * 1000)(*[NOT_ENOUGH_REPLICAS] * 1000)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, PRODUCE, ctypes.c_size_t(1000), errors)

    def accept(self) -> None:
        """Refuses no longer."""
        self._lib.rd_kafka_mock_clear_request_errors(self._cluster, PRODUCE)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)

    def messages(self, kcat: str) -> list[dict[str, Any]]:
        """All that the topic has now, as kcat reads it: "partition", "offset", "key", "payload" and others."""
        command = [kcat, "-q", "-b", self.address, "-C", "-t", TOPIC, "-e", "-J", "-X", "fetch.wait.max.ms=10"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    print(Broker().address, flush=True)
    signal.pause()
