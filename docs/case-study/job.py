#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A job of eight workers that all talk to one another, one of which goes deaf; and a program that only burns CPU.

    unshare --net python3 -I -S job.py [SECONDS]

Prints who is who as JSON lines: rank and process id of each worker, and the addresses and ports of its sockets. Every
socket loses one segment in three hundred, as links do; after a third of the time nothing sent to rank 5 comes in.
Losses are made by a filter on the receiving socket, so nothing of the machine is changed, and nothing leaves it.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

RANKS, DEAF, PORT = 8, 5, 29500
LOST = 2**32 // 300
SO_ATTACH_FILTER = 26
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
Instruction = Tuple[int, int, int, int]
LOSSY: List[Instruction] = [(0x20, 0, 0, RANDOM), (0x35, 0, 1, LOST), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
NOTHING: List[Instruction] = [(0x06, 0, 0, 0)]


def receive_only(of: socket.socket, program: List[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(code, len(code))
    of.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(held)))


def address(rank: int) -> str:
    return f"127.0.7.{rank + 1}"


def joined(rank: int) -> Dict[int, socket.socket]:
    """Connections by rank: made to every lower one, taken from every higher one, which says who it is."""
    peers = {}
    with socket.create_server((address(rank), PORT)) as listening:
        for other in range(rank):
            while other not in peers:
                made = socket.socket()
                made.bind((address(rank), 0))
                try:
                    made.connect((address(other), PORT))
                    made.send(bytes([rank]))
                    peers[other] = made
                except ConnectionRefusedError:  # it has not begun to listen
                    made.close()
                    time.sleep(0.1)
        while len(peers) < RANKS - 1:
            made = listening.accept()[0]
            peers[made.recv(1)[0]] = made
    return peers


def worker(rank: int, seconds: float) -> None:
    peers = joined(rank)
    sockets = [[*each.getsockname(), *each.getpeername()] for each in peers.values()]
    tell(rank, f"trainer-{rank}", sockets)
    for each in peers.values():
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receive_only(each, LOSSY)
    begin, deaf, chance = time.monotonic(), False, random.Random(rank)
    while time.monotonic() < begin + seconds:
        if rank == DEAF and not deaf and time.monotonic() > begin + seconds / 3:
            deaf = True
            for each in peers.values():
                receive_only(each, NOTHING)
        with contextlib.suppress(ConnectionError, BlockingIOError):  # others end a little earlier
            for each in select.select(list(peers.values()), [], [], 0)[0]:
                each.recv(65536)
            for each in select.select([], list(peers.values()), [], 0)[1]:
                each.send(b"gradient" * 8)
        time.sleep(chance.uniform(0.05, 0.15))


def burn(seconds: float) -> None:
    tell(None, "dataloader", [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def tell(rank: Optional[int], name: str, sockets: List[List[Any]]) -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)
    print(json.dumps({"rank": rank, "pid": os.getpid(), "comm": name, "sockets": sockets}), flush=True)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 24.0
    if "RANK" in os.environ:
        worker(int(os.environ["RANK"]), seconds)
        return 0
    if "DATALOADER" in os.environ:
        burn(seconds)
        return 0
    with socket.socket() as any_socket:  # the loopback of a new network namespace is down
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(seconds)]
    each = [{"RANK": str(rank)} for rank in range(RANKS)] + [{"DATALOADER": "1"}]
    running = [subprocess.Popen(command, env={**os.environ, **more}) for more in each]
    return max(one.wait() for one in running)


if __name__ == "__main__":
    sys.exit(main())
