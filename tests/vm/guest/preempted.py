"""SOCKETS BUSY [OPTION...]: sockets that a parent used pass to a child, which sends once, beside busy senders.

Prints what became of the events as one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List

SOCKPID = [sys.executable, "-I", "-S", "/sockpid/runtime", "run", "--json", "--summary"]
DONTWAIT_NOSIGNAL = 0x4040


def deaf(receiver: socket.socket) -> None:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    receiver.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))


def busy(listener: socket.socket, port: int) -> int:
    """A process that sends one byte after the other into a full socket. Returns its id."""
    sender = socket.create_connection(("127.0.0.1", port))
    listener.accept()[0].detach()  # open as long as we are
    sender.setblocking(False)
    try:
        while True:
            sender.send(bytes(65536))
    except BlockingIOError:
        pass
    pid = os.fork()
    if pid == 0:
        send, byte, fd = ctypes.CDLL(None).send, ctypes.create_string_buffer(b"x"), sender.fileno()
        while True:
            send(fd, byte, 1, DONTWAIT_NOSIGNAL)
    return pid


def main() -> None:
    sockets, senders, options = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(600)
    port = listener.getsockname()[1]
    with open("/run/events", "wb") as out, open("/run/said", "wb") as err:
        probe = subprocess.Popen([*SOCKPID, *options], stdout=out, stderr=err)
    for _ in range(600):
        if b"offsets from" in open("/run/said", "rb").read() or probe.poll() is not None:
            break
        time.sleep(0.1)
    busies = [busy(listener, port) for _ in range(senders)]
    truth: Dict[int, int] = {}
    kept: List[socket.socket] = []
    for _ in range(sockets):
        client = socket.create_connection(("127.0.0.1", port))
        server = listener.accept()[0]
        client.send(b"1")
        server.recv(1)
        deaf(server)
        pid = os.fork()
        if pid == 0:
            client.send(b"2")
            os._exit(0)
        os.waitpid(pid, 0)
        truth[client.getsockname()[1]] = pid
        kept += [client, server]
    time.sleep(1.5)
    for pid in busies:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    time.sleep(0.5)
    probe.send_signal(signal.SIGINT)
    probe.wait()
    found: Dict[str, Any] = {"right": 0, "unknown": 0, "wrong": []}
    for line in open("/run/events"):
        event = json.loads(line)
        if event.get("sport") not in truth or event["dport"] != port:
            continue
        if event["pid"] == truth[event["sport"]]:
            found["right"] += 1
        elif event["pid"] is None:
            found["unknown"] += 1
        else:
            found["wrong"].append({name: event[name] for name in ("pid", "how", "certain", "doubt", "ambiguous")})
    said = open("/run/said").read().splitlines()
    hooks = next(line for line in said if "offsets from" in line).partition("; ")[2]
    found["hooks"] = dict(part.split(": ", 1) for part in hooks.split(", "))
    found["missed"] = json.loads(next(line for line in said if '"summary"' in line).partition(": ")[2])["missed"]
    print(json.dumps(found))


main()
