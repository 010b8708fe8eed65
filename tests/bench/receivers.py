"""Those to whom outputs talk, in a process of their own: they count the events that arrive, and throw them away."""

from __future__ import annotations

import contextlib
import http.server
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GAP = b'"dropped": '
CONTEXT = multiprocessing.get_context("fork")


class Receiver:
    """Counts until finish(). function is called with a pipe: sends where it is, then its count after a message."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=function, args=(theirs, *arguments), daemon=True)
        self._process.start()
        self.place = self._pipe.recv()

    def finish(self) -> int:
        """All has been sent: the events that arrived, and those that it was told are missing."""
        with contextlib.suppress(BrokenPipeError):  # it saw the end itself
            self._pipe.send("finish")
        received: int = self._pipe.recv()
        self._process.join()
        return received


def datagrams(pipe: Any, path: str) -> None:
    """A log daemon."""
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    daemon.bind(path)
    pipe.send(path)
    count = 0
    daemon.settimeout(0.2)
    while True:
        try:
            while daemon.recv(1 << 16):
                count += 1
        except TimeoutError:
            if pipe.poll():
                break
    pipe.send(count)


def reader(pipe: Any, path: str) -> None:
    """Connects to a Unix socket once it is there."""
    pipe.send(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            connection.connect(path)
            break
        except OSError:
            time.sleep(0.005)
    count = missing = 0
    rest = b""
    while data := connection.recv(1 << 20):
        told = (rest + data).split(b"\n")
        rest = told.pop()
        gaps = [line for line in told if GAP in line]
        count += len(told) - len(gaps)
        missing += sum(int(json.loads(line)["dropped"]) for line in gaps)
    pipe.send(count + missing)


def lines(pipe: Any, skip: int) -> None:
    """The reading end of a pipe, for what goes to standard output. skip: lines that are a header."""
    path = Path(f"/tmp/sockpid-bench-{os.getpid()}")
    os.mkfifo(path)
    pipe.send(str(path))
    count = -skip
    with path.open("rb", buffering=1 << 20) as file:
        path.unlink()
        for line in file:
            count += GAP not in line
    pipe.send(count)


def files(pipe: Any, directory: str) -> None:
    """The lines of all files in a directory, once they have been written."""
    pipe.send(f"{directory}/events.jsonl")
    pipe.recv()
    count = 0
    for each in Path(directory).iterdir():
        with each.open("rb") as file:
            while data := file.read(1 << 20):
                count += data.count(b"\n")
    pipe.send(count)


def collector(pipe: Any) -> None:
    """OTLP over HTTP: takes every request, and counts its log records."""
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal count
            body = self.rfile.read(int(self.headers["Content-Length"]))
            count += body.count(b'"observedTimeUnixNano"')
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.timeout = 0.2
        pipe.send(f"http://127.0.0.1:{server.server_port}")
        while not pipe.poll():
            server.handle_request()
    pipe.send(count)
