"""SOCKETS: one process receives without pause by a socket that another one sends by, which preempts it, and accepts.

So the element of the map that the first one looks at, inside a program, is freed and given to another socket now and
then. Prints what became of the events of the accepted sockets, and of the shared one, as a line of JSON.
"""

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
import threading
import time
from typing import Any, Dict, List, Tuple

SOCKPID = [sys.executable, "-I", "-S", "/sockpid/runtime", "run", "--json", "--max-sockets", "65536"]
DONTWAIT = 0x40


def deaf(receiver: socket.socket) -> None:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    receiver.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))


def receive_for_ever(shared: socket.socket) -> None:
    """By two threads in turn: with another one, what is known of the socket changes."""
    libc, fd = ctypes.CDLL(None), shared.fileno()
    recv, give_way, byte = libc.recv, libc.sched_yield, ctypes.create_string_buffer(1)

    def receive() -> None:
        os.sched_setaffinity(0, {0})
        while True:
            recv(fd, byte, 1, DONTWAIT)
            give_way()

    threading.Thread(target=receive, daemon=True).start()
    receive()


def accept_many(shared: socket.socket, listener: socket.socket, count: int, ready: int, gate: int) -> None:
    """Whenever it wakes, the other one is wherever it was."""
    os.sched_setaffinity(0, {0})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    kept: List[Tuple[socket.socket, socket.socket]] = []
    for number in range(count):
        client = socket.create_connection(listener.getsockname())
        time.sleep((30 + number % 97 * 0.15) * 1e-6)
        shared.send(b"x", DONTWAIT)
        kept.append((client, listener.accept()[0]))
    os.write(ready, b"r")
    os.read(gate, 1)
    for client, accepted in kept:
        deaf(client)
        accepted.shutdown(socket.SHUT_WR)
    os.write(ready, b"r")
    time.sleep(100)


def main() -> None:
    count, options = int(sys.argv[1]), sys.argv[2:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    with open("/run/events", "wb") as out, open("/run/said", "wb") as err:
        probe = subprocess.Popen([*SOCKPID, *options], stdout=out, stderr=err)
    for _ in range(600):
        if b"offsets from" in open("/run/said", "rb").read() or probe.poll() is not None:
            break
        time.sleep(0.1)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(600)
    port = listener.getsockname()[1]
    shared = socket.create_connection(("127.0.0.1", port))
    peer = listener.accept()[0]
    shared.send(b"1")
    peer.recv(1)
    (ready, say), (wait, gate) = os.pipe(), os.pipe()
    receives = os.fork()
    if receives == 0:
        receive_for_ever(shared)
    accepts = os.fork()
    if accepts == 0:
        accept_many(shared, listener, count, say, wait)
    os.read(ready, 1)
    os.kill(receives, signal.SIGKILL)
    os.waitpid(receives, 0)
    deaf(peer)
    os.write(gate, b"g")
    os.read(ready, 1)
    shared.shutdown(socket.SHUT_WR)
    time.sleep(3)
    probe.send_signal(signal.SIGINT)
    probe.wait()
    os.kill(accepts, signal.SIGKILL)
    found: Dict[str, Any] = {"accepted": 0, "shared": 0, "unknown": 0, "wrong": []}
    for line in open("/run/events"):
        event = json.loads(line)
        named = {name: event[name] for name in ("pid", "how", "opener_pid", "ambiguous", "certain", "doubt")}
        if event["sport"] == port and event["dport"] != shared.getsockname()[1]:
            if event["pid"] is None:
                found["unknown"] += 1
            elif (event["pid"], event["opener_pid"], event["ambiguous"]) == (accepts, accepts, 1):
                found["accepted"] += 1
            else:
                found["wrong"].append(named)
        elif event["sport"] == shared.getsockname()[1]:
            # Of two that use it in the same moment the one may undo what is known by the other, and who opened it: then
            # there is no opener, and fewer are counted.
            opened = event["opener_pid"] in (os.getpid(), None)
            if opened and event["pid"] in (os.getpid(), accepts, receives):
                found["shared"] += 1
            else:
                found["wrong"].append(named)
    found["said"] = open("/run/said").read()
    print(json.dumps(found))


main()
