"""A machine that others use: what a host of containers does beside a test, for a while.

`python -m tests.neighbours --seconds 600` prints a line once all is there, and ends all that it has started: after that
time, on SIGTERM and SIGINT, and when whoever started it is gone. With a command, it is there as long as that runs, and
ends with its status: `python -m tests.neighbours pytest tests/kernel`. It needs root.

- strangers, whose receivers drop everything: their segments are retransmitted, in our network namespace and in others
- a namespace that a file keeps, one whose file is hidden by another mount, one that a process alone lives in, one that
  only a descriptor refers to, and one that only its sockets keep
- a tracer that loads a BPF program and a map, attaches to retransmits, and goes again
- connections that last for milliseconds, and processes that do
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from sockpid import syscall, uapi
from sockpid.subjects.deaf import drop_everything

from . import namespaces

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
READY = "the neighbours are there"
RAW_TRACEPOINT, ARRAY = 17, 2
"""BPF_PROG_TYPE_RAW_TRACEPOINT and BPF_MAP_TYPE_ARRAY."""


class Stranger:
    """A connection over loopback whose accepting end is deaf, with two segments on their way."""

    def __init__(self, family: socket.AddressFamily) -> None:
        with socket.socket(family) as listener:
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen()
            self.sender = socket.socket(family)
            self.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sender.connect(listener.getsockname())
            self.receiver = listener.accept()[0]
        drop_everything(self.receiver)
        self.sender.send(b"x")
        self.sender.send(b"x")

    def close(self, orphan: bool = False) -> None:
        """orphan: the kernel goes on with it for a minute; else a reset ends it."""
        if not orphan:
            self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sender.close()
        self.receiver.close()


def strangers(count: int = 8) -> NoReturn:
    """So many at a time, each for two seconds: loss probes and timeouts, and sometimes a FIN that nobody hears."""
    kinds = itertools.cycle((socket.AF_INET, socket.AF_INET6))
    living = [Stranger(next(kinds)) for _ in range(count)]
    for number in itertools.count():
        time.sleep(2 / count)
        living.pop(0).close(orphan=number % 8 == 0)
        living.append(Stranger(next(kinds)))
    raise AssertionError


def connections() -> NoReturn:
    """A hundred a second: connect, send, close."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        while True:
            with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
                client.sendall(b"x")
                server.recv(1)
            time.sleep(0.01)


def processes() -> NoReturn:
    """Twenty a second, each of which has a socket open while it lives."""
    while True:
        with socket.socket() as held:
            subprocess.run(["true"], pass_fds=[held.fileno()], check=True)
        time.sleep(0.05)


def tracer() -> NoReturn:
    """Attaches an empty program to retransmits for a fifth of a second, once a second."""
    nothing = bytearray(struct.pack("=BxhiBxhi", 0xB7, 0, 0, 0x95, 0, 0))  # r0 = 0; exit
    licence, event = bytearray(b"GPL\0"), bytearray(b"tcp_retransmit_skb\0")
    load = struct.pack("=IIQQ", RAW_TRACEPOINT, 2, syscall.address(nothing), syscall.address(licence))
    while True:
        with contextlib.ExitStack() as stack:

            def own(fd: int, stack: contextlib.ExitStack = stack) -> int:
                stack.callback(os.close, fd)
                return fd

            own(syscall.bpf("BPF_MAP_CREATE", uapi.BPF_MAP_CREATE, bytearray(struct.pack("=IIII", ARRAY, 4, 8, 64))))
            program = own(syscall.bpf("BPF_PROG_LOAD", uapi.BPF_PROG_LOAD, bytearray(load.ljust(48, b"\0"))))
            attach = bytearray(struct.pack("=QI4x", syscall.address(event), program))
            own(syscall.bpf("BPF_RAW_TRACEPOINT_OPEN", uapi.BPF_RAW_TRACEPOINT_OPEN, attach))
            time.sleep(0.2)
        time.sleep(0.8)


def in_new_namespace() -> NoReturn:
    """Strangers in a network namespace that no file stands for."""
    syscall.unshare(CLONE_NEWNET)
    namespaces.loopback_up()
    strangers(2)


def descriptor() -> NoReturn:
    """Only a descriptor refers to the namespace: nobody lives there, and it has no socket."""
    held = _elsewhere(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    time.sleep(1 << 20)
    raise AssertionError(held)


def sockets() -> NoReturn:
    """Only sockets keep the namespace, held by a process that lives in another one."""
    while True:
        held = _elsewhere(lambda: [Stranger(socket.AF_INET) for _ in range(2)])
        time.sleep(5)
        for each in held:
            each.close()


def _elsewhere(make: Callable[[], T]) -> T:
    """What `make` gives in a new network namespace, in which a thread lives for that long."""
    made: list[T] = []

    def enter() -> None:
        syscall.unshare(CLONE_NEWNET)
        namespaces.loopback_up()
        made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


ALL = {
    function.__name__: function
    for function in (strangers, connections, processes, tracer, in_new_namespace, descriptor, sockets)
}


@contextlib.contextmanager
def files(hide: bool) -> Iterator[Path]:
    """A directory in which a file stands for a network namespace, and another one did until it was mounted over."""
    place = Path(tempfile.mkdtemp(prefix="neighbours-", dir="/run"))
    hidden = place / "hidden"
    hidden.mkdir()
    mounted: list[Path] = []
    try:
        for file in (place / "named", hidden / "named"):
            file.touch()
            subprocess.run(["unshare", f"--net={file}", "ip", "link", "set", "lo", "up"], check=True)
            mounted.append(file)
        if hide:
            subprocess.run(["mount", "-t", "tmpfs", "neighbours", hidden], check=True)
            mounted.append(hidden)
        yield place
    finally:
        for path in reversed(mounted):
            subprocess.run(["umount", "--lazy", path], check=True)  # somebody may look at it
        for file in (place / "named", hidden / "named"):
            file.unlink(missing_ok=True)
        hidden.rmdir()
        place.rmdir()


def started(work: Callable[[], NoReturn], parent: int) -> int:
    """A child that does this until it is killed, or we are gone."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscall.prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            work()
    except BaseException as error:  # a thread's or a child's, who must not go on as the parent
        print(f"neighbours: {getattr(work, '__name__', work)}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def work_in(file: Path) -> Callable[[], NoReturn]:
    """Strangers in the namespace that the file stands for."""

    def strangers_there() -> NoReturn:
        with file.open("rb") as namespace:
            syscall.setns(namespace.fileno(), CLONE_NEWNET)
        strangers(2)

    return strangers_there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="how long (default: a minute, or until the command ends)")
    parser.add_argument(
        "--without", action="append", default=[], choices=[*ALL, "hidden"], help="to see which of them is in the way"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="to be run beside them")
    options = parser.parse_args()
    until = time.monotonic() + (options.seconds or (float("inf") if options.command else 60.0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    starter = os.getppid()
    works = [work for name, work in ALL.items() if name not in options.without]
    with files("hidden" not in options.without) as place:
        children: list[int] = []
        try:
            children += [started(work, os.getpid()) for work in (*works, work_in(place / "named"))]
            time.sleep(0.5)
            print(READY, flush=True)
            beside = subprocess.Popen(options.command) if options.command else None
            try:
                while time.monotonic() < until and os.getppid() == starter:
                    time.sleep(0.1)
                    if beside is not None and beside.poll() is not None:
                        return beside.returncode
                    if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
                        print("neighbours: one of them has ended", file=sys.stderr)
                        return 1
            finally:
                if beside is not None and beside.poll() is None:
                    beside.terminate()
                    beside.wait()
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
            for child in children:
                os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
