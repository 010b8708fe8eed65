"""What the documentation's commands find where they are run: things that a reader has, and a test has to make."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from sockpid.request.request import Request, digest, without_builder
from sockpid.table.table import parse_shard
from tests import kernel_files
from tests.streams import Cluster, record

from . import prometheus
from .page import ROOT
from .shell import Shell


def checkout(shell: Shell) -> None:
    """The project's tree, as `git clone` leaves it, but for the table: that is a stage of its own."""
    for each in ("runtime", "tests", "bpf_bytecode", "docs", "packaging", "README.md"):
        (shell.here / each).symlink_to(ROOT / each)


def traffic(shell: Shell) -> None:
    """Programs whose peers never answer, as long as the page is read, beside two that only burn CPU."""
    workload = f"{sys.executable} -I -S {ROOT}/tests/workload.py --name trainer --families inet,inet6"
    shell.run(f"(for i in $(seq 100); do {workload} --processes 3 --seconds 3; done) >/dev/null 2>&1 &")


CONNECTION = """
import socket, time
listening = socket.create_server(("10.0.0.2", 9000))
near = socket.create_connection(("10.0.0.2", 9000), source_address=("10.0.0.1", 40034))
far = listening.accept()[0]
while True:
    near.send(b"x")
    time.sleep(0.1)
"""


def connection(shell: Shell) -> None:
    """10.0.0.1:40034, connected to 10.0.0.2:9000."""
    (shell.here.parent / "connection.py").write_text(CONNECTION)
    shell.run("ip address add 10.0.0.1/32 dev lo; ip address add 10.0.0.2/32 dev lo")
    shell.run("python3 $SCRATCH/connection.py &")


def pinned(shell: Shell) -> None:
    """A `sockpid run --pin` in the background."""
    shell.run("sockpid run --pin --output file:$SCRATCH/pinned.jsonl &")
    ran = shell.run("for i in $(seq 300); do sockpid lookup --all >/dev/null 2>&1 && break; sleep 0.1; done")
    assert ran.status == 0, ran.lines


def program(shell: Shell) -> None:
    """my.bpf.o: a program that declares the map socket_to_pid."""
    source = ROOT / "tests/kernel/independent.bpf.c"
    ran = shell.run(f"clang-14 -g -O2 -target bpf -I{ROOT}/bpf_bytecode -I/usr/include/$(clang-14 -print-multiarch) "
                    f"-c {source} -o my.bpf.o")  # fmt: skip
    assert ran.status == 0, ran.lines


def events(shell: Shell) -> None:
    """node-*.jsonl: a cluster's events, one file a host. node-0005 is the culprit."""
    record(Cluster(8, 4, 3, culprit=5), 4000, shell.here)


def table(shell: Shell) -> None:
    """offsets/: a part of the published table."""
    for name in ("x86_64/6.1.json", "x86_64/6.12.json"):
        (shell.here / "offsets" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "offsets" / name, shell.here / "offsets" / name)
    for each in (ROOT / "offsets").iterdir():
        if each.is_file():
            shutil.copy(each, shell.here / "offsets" / each.name)


def request(shell: Shell) -> None:
    """other-host.req: of a host with a kernel that the table knows."""
    known = parse_shard((ROOT / "offsets/x86_64/6.1.json").read_bytes(), "6.1.json")
    entry = next(entry for entry in known.entries if entry.release == "6.1.0-50-amd64")
    assert entry.banner is not None
    asked = Request(entry.build_id, entry.release, "x86_64", without_builder(entry.banner), digest(entry.banner))
    (shell.here / "other-host.req").write_text(asked.text)


def vmlinux(shell: Shell) -> None:
    """vmlinux, kernel.btf, linux-image-6.1.0-1-test_6.1.1_amd64.deb: a small kernel."""
    package = kernel_files.deb({"./boot/vmlinux-6.1.0-1-test": kernel_files.elf()})
    (shell.here / "linux-image-6.1.0-1-test_6.1.1_amd64.deb").write_bytes(package)
    (shell.here / "vmlinux").write_bytes(kernel_files.elf())
    (shell.here / "kernel.btf").write_bytes(kernel_files.btf())


def promtool(shell: Shell) -> None:
    """Prometheus' checker, as a command."""
    shell.run(f"PATH=$PATH:{prometheus.program('promtool').parent}")


COLLECTOR = """
import http.server
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from google.protobuf import json_format

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/logs":
            (found,) = json_format.Parse(body, ExportLogsServiceRequest()).resource_logs
            host = {a.key: a.value.string_value for a in found.resource.attributes}["host.name"]
            records = found.scope_logs[0].log_records
            owner = [a.value.int_value for a in records[0].attributes if a.key == "process.pid"] or "unknown"
            print(f"logs: {len(records)} records, the first of host {host}, process {owner}", flush=True)
        else:
            (found,) = json_format.Parse(body, ExportMetricsServiceRequest()).resource_metrics
            print(f"metrics: {len(found.scope_metrics[0].metrics)}", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Handler).serve_forever()
"""


def collector(shell: Shell) -> None:
    """Who takes OTLP on port 4318, understands it, and says so in collector.log."""
    (shell.here.parent / "collector.py").write_text(COLLECTOR)
    shell.run("python3 $SCRATCH/collector.py > collector.log 2>&1 &")
    ran = shell.run("for i in $(seq 300); do ss -ltn | grep -q 127.0.0.1:4318 && break; sleep 0.1; done")
    assert ran.status == 0, ran.lines


def kafka(shell: Shell) -> None:
    """A broker that is kafka-1.example.org:9092. librdkafka's takes any free port, so for a moment no other is free."""
    ports = "/proc/sys/net/ipv4/ip_local_port_range"
    ran = shell.run(
        f"ports=$(cat {ports}); echo 9092 9092 > {ports}; /usr/bin/python3 {ROOT}/tests/docs/kafka.py > kafka.log &\n"
        f"for i in $(seq 100); do [ -s kafka.log ] && break; sleep 0.1; done; echo $ports > {ports}\n"
        "grep -x 127.0.0.1:9092 kafka.log && echo 127.0.0.1 kafka-1.example.org kafka-2.example.org >> /etc/hosts"
    )
    assert ran.status == 0, ran.lines


def key(shell: Shell) -> None:
    """~/.ssh/id_ed25519, and its public half in allowed_signers."""
    shell.run("mkdir -p ~/.ssh && rm -f ~/.ssh/id_ed25519 && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && "
              "echo \"me@example.org $(cat ~/.ssh/id_ed25519.pub)\" > allowed_signers")  # fmt: skip


def config(shell: Shell) -> None:
    """config.toml, with an output and a filter."""
    (shell.here / "config.toml").write_text('output = ["file:events.jsonl"]\ncomm = "trainer-*"\n')


STAGES: dict[str, Callable[[Shell], None]] = {
    function.__name__: function
    for function in (
        checkout,
        config,
        traffic,
        connection,
        pinned,
        program,
        events,
        table,
        request,
        vmlinux,
        promtool,
        collector,
        kafka,
        key,
    )
}
