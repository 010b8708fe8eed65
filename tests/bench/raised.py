"""Events without traffic: the kernel runs the program of an attached probe for sockets that are there.

BPF_PROG_TEST_RUN of a raw tracepoint's program is the program as it always is: it looks the owner up, reads the
socket, and writes its record. Only so can events come as often as somebody asks for them.
Linux kernel commit 1b4d60ec162f ("bpf: Enable BPF_PROG_TEST_RUN for raw_tracepoint") (in v5.10)
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sockpid import syscall
from sockpid.bpf import map
from sockpid.image import image
from tests.bench.guest import bpf_objects

ROOT = Path(__file__).parents[2]
MAP_GET_FD_BY_ID = 14  # of enum bpf_cmd
READY = b"sockpid: offsets from"
TARGET_PYTHON = "/usr/bin/python3"
"""The distribution's, which is what targets have; where it is not there, this one."""


@functools.cache
def feeder() -> Path:
    """The compiled guest/feed.c."""
    program = Path(tempfile.mkdtemp(prefix="sockpid-bench."), "feed")
    source = Path(__file__).with_name("guest") / "feed.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


def feed(program: int, sockets: Sequence[bytes], rate: float, seconds: float) -> int:
    """Raises events; returns how many. program: its id. rate: a second, 0: as many as can be."""
    command = [str(feeder()), str(program), str(rate), str(seconds)]
    done = subprocess.run(command, input=b"".join(sockets), stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


class Run:
    """A `sockpid run` that is ready, with the maps and programs that are its own: there may be others."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.pid = process, process.pid
        self._log = log

    @property
    def program(self) -> int:
        """The id of its tcp_retransmit."""
        return self._programs("tcp_retransmit")[0]

    def named(self, name: str) -> bpf_objects.Run:
        """Calls of a program, and their time; of the first where several have the name."""
        return bpf_objects.programs()[self._programs(name)[0]]

    def _programs(self, name: str) -> list[int]:
        programs = bpf_objects.programs()
        return [number for number in self._ids("prog_id") if programs[number].name == name]

    def _ids(self, kind: str) -> list[int]:
        """The ids that the descriptors of the process are of: "prog_id" or "map_id"."""
        found = set()
        for path in Path(f"/proc/{self.pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found |= {int(number) for number in re.findall(rf"^{kind}:\s*(\d+)", path.read_text(), re.MULTILINE)}
        return sorted(found)

    def map(self, name: str) -> map.Map:
        """The map of this name; the caller closes it."""
        for number in self._ids("map_id"):
            attr = bytearray(struct.pack("=III", number, 0, 0))
            fd = syscall.bpf("BPF_MAP_GET_FD_BY_ID", MAP_GET_FD_BY_ID, attr)
            info = bytearray(40)
            query = bytearray(struct.pack("=IIQ", fd, len(info), syscall.address(info)))
            syscall.bpf("BPF_OBJ_GET_INFO_BY_FD", bpf_objects.OBJ_GET_INFO_BY_FD, query)
            _, _, key_size, value_size, entries, _ = struct.unpack_from("=6I", info)
            if bytes(info[24:40]).split(b"\0")[0] == name.encode()[:15]:
                return map.Map(image.Map(name, "", key_size, value_size, entries), fd, value_size)
            os.close(fd)
        raise RuntimeError(f"no map {name}")

    def sockets(self) -> list[bytes]:
        """The addresses of all sockets whose owner it knows."""
        with contextlib.closing(self.map("owner_by_sock")) as owners:
            return list(owners.keys())

    def end(self) -> str:
        """SIGINT, and what it said of itself."""
        self.process.send_signal(2)
        self.process.wait(60)
        return self._log.read_text()


@contextlib.contextmanager
def run(arguments: Sequence[str], stdout: Any = subprocess.DEVNULL) -> Iterator[Run]:
    python = TARGET_PYTHON if Path(TARGET_PYTHON).exists() else sys.executable
    with tempfile.TemporaryDirectory(prefix="sockpid-bench.") as directory:
        log = Path(directory, "log")
        with log.open("wb") as stderr:
            command = [python, "-I", "-S", str(ROOT / "runtime"), "run", *arguments]
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
        try:
            while READY not in log.read_bytes():
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield Run(process, log)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def owned(processes: int, sockets: int) -> Iterator[None]:
    """So many processes with so many connections each, all of which have sent. They end with this one."""
    children = []
    held, holding = os.pipe()
    try:
        for _ in range(processes):
            told, tell = os.pipe()
            child = os.fork()
            if not child:
                try:
                    _own(sockets, tell, held)
                finally:
                    os._exit(1)
            children.append(child)
            os.close(tell)
            ready = os.read(told, 1)
            os.close(told)
            if not ready:
                raise RuntimeError("a process with connections did not come up")
        yield
    finally:
        os.close(holding)
        os.close(held)
        for child in children:
            os.waitpid(child, 0)


def _own(sockets: int, tell: int, held: int) -> None:
    """Until nobody holds the other end of `held`. Lets go of all else that the parent had open: pipes, above all."""
    low, high = sorted((tell, held))
    for first, behind in ((0, low), (low + 1, high), (high + 1, 1 << 12)):
        os.closerange(first, behind)
    with socket.create_server(("127.0.0.1", 0), backlog=sockets) as listener:
        kept = [socket.create_connection(listener.getsockname()) for _ in range(sockets)]
        for each in kept:
            each.send(b"x")
        os.write(tell, b"x")
        os.close(tell)
        os.read(held, 1)
