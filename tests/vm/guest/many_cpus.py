"""SOCKETS: connections that are made on all CPUs in turn, and lose what is sent. Prints what was told as JSON."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List

SOCKPID = [sys.executable, "-I", "-S", "/sockpid/runtime", "run", "--json"]


def deaf(receiver: socket.socket) -> None:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    receiver.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))


def main() -> None:
    count, options = int(sys.argv[1]), sys.argv[2:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    with open("/run/events", "wb") as out, open("/run/said", "wb") as err:
        probe = subprocess.Popen([*SOCKPID, *options], stdout=out, stderr=err)
    for _ in range(1200):
        if b"offsets from" in open("/run/said", "rb").read() or probe.poll() is not None:
            break
        time.sleep(0.1)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(count)
    port = listener.getsockname()[1]
    cpus = sorted(os.sched_getaffinity(0))
    kept: List[socket.socket] = []
    for number in range(count):
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})
        client = socket.create_connection(("127.0.0.1", port))
        server = listener.accept()[0]
        client.send(b"1")
        server.recv(1)
        kept += [client, server]
    os.sched_setaffinity(0, set(cpus))
    for server in kept[1::2]:
        deaf(server)
    for client in kept[::2]:
        client.send(b"2")
    time.sleep(4)
    probe.send_signal(signal.SIGINT)
    probe.wait()
    found: Dict[str, Any] = {"cpus": len(cpus), "right": 0, "wrong": 0, "unknown": {}, "sockets": 0}
    sockets = set()
    for line in open("/run/events"):
        event = json.loads(line)
        if event["dport"] != port:
            continue
        sockets.add(event["sport"])
        if event["pid"] is None:
            found["unknown"][event["reason"]] = found["unknown"].get(event["reason"], 0) + 1
        else:
            found["right" if event["pid"] == os.getpid() else "wrong"] += 1
    found["sockets"] = len(sockets)
    found["said"] = open("/run/said").read().splitlines()
    print(json.dumps(found))


main()
