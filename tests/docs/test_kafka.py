"""rsyslog takes what sockpid writes to Kafka as the example says: through rotation, while no broker is there, over a
restart.

The broker is librdkafka's (kafka.py); what is in the topic is read by kcat.
"""

from __future__ import annotations

import collections
import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sockpid.outputs import Outputs
from sockpid.outputs.base import gap
from tests.streams import Cluster, document, unknown
from tests.unit.outputs.test_wire import NASTY, program

from .kafka import TOPIC, Broker
from .page import ROOT

EXAMPLE = ROOT / "docs/examples/rsyslog-kafka.conf"
DUPLICATES = 6
"""omkafka hands an event to librdkafka and, told meanwhile that the broker is gone, takes it from rsyslog once more:
two or three events of this test arrive twice."""


class Host:
    """rsyslogd with the example, and a file that it reads, in a directory."""

    def __init__(self, directory: Path, broker: Broker) -> None:
        self.log = directory / "log/events.jsonl"
        self.log.parent.mkdir()
        self.spool = directory / "spool"
        self.spool.mkdir()
        self._directory = directory
        self._rsyslogd = program("rsyslogd", "rsyslog")
        if not any(Path("/usr/lib").glob("*/rsyslog/omkafka.so")):
            pytest.skip("omkafka is not installed (Debian package rsyslog-kafka)")
        text = EXAMPLE.read_text()
        for old, new in (
            (r'broker=\["[^]]*"\]', f'broker=["{broker.address}"]'),
            ("/var/log/sockpid/events.jsonl", str(self.log)),
            ("/var/spool/rsyslog", str(self.spool)),
            ('action.resumeInterval="5"', 'action.resumeInterval="1"'),
        ):
            text, count = re.subn(old, new, text)
            assert count, old
        (directory / "sockpid.conf").write_text(text)
        # The distribution's own file says such things before it includes those of /etc/rsyslog.d.
        (directory / "main.conf").write_text(
            'module(load="immark")\n$WorkDirectory /var/spool/rsyslog\n'
            f'include(file="{directory}/sockpid.conf")\n*.* {directory}/system.log\n'
        )

    def check(self, file: str) -> str:
        """What rsyslogd says is wrong with a configuration. This forgets what omkafka has kept of an earlier run."""
        done = subprocess.run(
            [self._rsyslogd, "-N1", "-f", self._directory / file], capture_output=True, text=True, check=False
        )
        return "" if done.returncode == 0 else done.stderr

    @contextlib.contextmanager
    def rsyslog(self, file: str = "sockpid.conf") -> Iterator[None]:
        with subprocess.Popen(
            [self._rsyslogd, "-n", "-f", self._directory / file, "-i", self._directory / "pid"],
            stderr=subprocess.DEVNULL,  # it tells of brokers that are gone
        ) as daemon:
            try:
                yield
            finally:
                daemon.terminate()
                try:
                    daemon.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    raise


@pytest.fixture(name="kcat")
def _kcat() -> str:
    return program("kcat", "kcat")


@pytest.fixture(name="broker")
def _broker(kcat: str) -> Iterator[Broker]:
    made = Broker()
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


def lines(messages: list[dict[str, Any]]) -> collections.Counter[str]:
    return collections.Counter(message["payload"].removesuffix("\n") for message in messages)


def numbered(count: int) -> list[dict[str, Any]]:
    """Events of eight hosts, every one different."""
    return [{**made, "ns_pid": number} for number, made in enumerate(Cluster(8, 4, 3, culprit=5).events(count))]


def test_every_event_arrives_once_and_whole(broker: Broker, kcat: str, tmp_path: Path) -> None:
    """Through rotations; of every host in one partition, in order."""
    host = Host(tmp_path, broker)
    sharers = [{"pid": pid, "comm": "python3"} for pid in range(1000)]
    events = [document(**NASTY), unknown(), document(sharers=sharers), *numbered(600)]
    written: collections.Counter[str] = collections.Counter()
    with host.rsyslog():
        outputs = Outputs.open([f"file:{host.log},size=100K,keep=100"], list[str]().append)
        outputs.start()
        for first in range(0, len(events), 60):  # less than a file: one that is renamed before it is seen is not read
            part = events[first : first + 60]
            written.update(map(json.dumps, part))
            outputs.offer(part)
            until(lambda: len(lines(broker.messages(kcat))) == len(written))
        outputs.close()
    assert len(list(host.log.parent.iterdir())) > 4
    messages = broker.messages(kcat)
    assert lines(messages) == written
    schema = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/events.schema.json").read_text()))
    partitions = collections.defaultdict(set)
    found = collections.defaultdict(list)
    for message in messages:
        event = json.loads(message["payload"])
        schema.validate(event)
        assert message["key"] == event["host"]
        partitions[message["key"]].add(message["partition"])
        found[message["key"]].append(event)
    assert all(len(each) == 1 for each in partitions.values())
    assert len(set().union(*partitions.values())) > 1
    assert found == {name: [event for event in events if event["host"] == name] for name in found}
    assert [event["pid"] for event in found["node-1"]] == [4711, None, 4711]
    assert found["node-0005"][0]["labels"]["env"]["RANK"]


def test_beside_the_distributions_own_configuration(broker: Broker, kcat: str, tmp_path: Path) -> None:
    """As one file of others: long events are whole, a gap has its host's key, and the system's log has none of it."""
    host = Host(tmp_path, broker)
    assert host.check("main.conf") == ""
    long = document(sharers=[{"pid": pid, "comm": "python3"} for pid in range(1000)])
    events = [long, gap("node-7", 112).document]
    with host.rsyslog("main.conf"):
        host.log.write_text("".join(json.dumps(event) + "\n" for event in events))
        until(lambda: lines(broker.messages(kcat)) == collections.Counter(map(json.dumps, events)))
    keys = {json.loads(message["payload"])["host"]: message["key"] for message in broker.messages(kcat)}
    assert keys == {"node-1": "node-1", "node-7": "node-7"}
    log = tmp_path / "system.log"
    assert not log.exists() or "schema" not in log.read_text()


def test_a_broker_that_comes_late_or_goes_gets_all(broker: Broker, kcat: str, tmp_path: Path) -> None:
    """Also what rsyslog had when it was stopped meanwhile, and what was written while it was not there."""
    host = Host(tmp_path, broker)
    parts = [numbered(3600)[first : first + 600] for first in range(0, 3600, 600)]
    with host.log.open("w") as log:

        def write(events: list[dict[str, Any]]) -> None:
            log.writelines(json.dumps(event) + "\n" for event in events)
            log.flush()

        broker.down()
        with host.rsyslog():
            write(parts[0])
            time.sleep(1)
            broker.up()
            until(lambda: len(lines(broker.messages(kcat))) == 600)
            broker.down()
            time.sleep(0.5)
            write(parts[1][:200])  # stays in memory
            time.sleep(1)
        assert {each.name.partition(".")[0] for each in host.spool.iterdir()} >= {"sockpid-kafka"}
        write(parts[1][200:] + parts[2] + parts[3])
        with host.rsyslog():
            write(parts[4])
            time.sleep(1)
            broker.up()
            write(parts[5])
            until(lambda: len(lines(broker.messages(kcat))) == 3600)
    found = lines(broker.messages(kcat))
    assert found.keys() == {json.dumps(event) for part in parts for event in part}
    assert found.total() <= 3600 + DUPLICATES
    for message in broker.messages(kcat):
        assert message["key"] == json.loads(message["payload"])["host"]


def test_what_a_broker_has_not_taken_is_kept_over_a_restart(broker: Broker, kcat: str, tmp_path: Path) -> None:
    """omkafka had them already, and the broker was there."""
    host = Host(tmp_path, broker)
    first, second, third = (numbered(60)[at : at + 20] for at in (0, 20, 40))
    with host.log.open("w") as log:
        with host.rsyslog():
            for part in (first, second):
                log.writelines(json.dumps(event) + "\n" for event in part)
                log.flush()
                if part is first:
                    until(lambda: len(broker.messages(kcat)) == 20)
                    broker.refuse()
            time.sleep(1)
        assert len(broker.messages(kcat)) == 20
        broker.accept()
        with host.rsyslog():
            log.writelines(json.dumps(event) + "\n" for event in third)
            log.flush()
            until(lambda: len(broker.messages(kcat)) == 60)
    assert lines(broker.messages(kcat)) == collections.Counter(map(json.dumps, first + second + third))


def test_the_example_reads_what_its_first_line_has_written() -> None:
    first, _, rest = EXAMPLE.read_text().partition("\n")
    written = re.search(r"--output file:(\S+)", first)
    assert written
    assert f'file="{written[1]}"' in rest
    assert f'topic="{TOPIC}"' in rest
