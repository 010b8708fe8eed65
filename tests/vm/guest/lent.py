"""KIND...: what the kernel does with TCP sockets for others: its own, and those that a process lent to it.

Each kind makes one connection whose peer hears no data. Prints, as a line of JSON, by kind: who took part, and what was
told of that connection. A kind that this kernel does not have is a text that says so.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.vm.guest import rpc
else:
    sys.path.insert(0, "/run")
    import rpc  # where sys.path says

LIBC = ctypes.CDLL(None, use_errno=True)
Parts = Dict[str, int]
DATA_ALONE = ((0x30, 0, 0, 12), (0x54, 0, 0, 0xF0), (0x74, 0, 0, 2), (0x07, 0, 0, 0), (0x80, 0, 0, 0), (0x1C, 0, 0, 0),
              (0x15, 0, 1, 0), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))  # fmt: skip
"""A filter that lets segments through which are as long as their header says that it is, and no longer."""


def hears_no_data(listener: socket.socket) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in DATA_ALONE))
    listener.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", len(DATA_ALONE), ctypes.addressof(code)))


def called(name: str) -> None:
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def child(name: str, body: Callable[[], object]) -> int:
    """A process that does this and then nothing, until it is killed. What goes wrong in it is told."""
    pid = os.fork()
    if pid == 0:
        try:
            called(name)
            body()
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr, flush=True)
        finally:
            while True:
                time.sleep(100)
    PROCESSES.append(pid)
    return pid


PROCESSES: List[int] = []


def deaf_listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    hears_no_data(listener)
    listener.listen(8)
    return listener


def mount(kind: str, source: str, options: str) -> None:
    os.makedirs(f"/mnt-{kind}", exist_ok=True)
    if LIBC.mount(source.encode(), f"/mnt-{kind}".encode(), kind.encode(), 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def nfs(port: int) -> Parts:
    """Who mounts, and who only looks at what is mounted, both make the kernel send. Its connection becomes deaf when it
    is mounted."""
    options = f"vers=3,addr=127.0.0.1,mountaddr=127.0.0.1,mountport={port},mountvers=3,mountproto=tcp,port={port},"
    mounted = child("mounts", lambda: mount("nfs", "127.0.0.1:/x", f"{options}proto=tcp,nolock,noac,soft,noresvport"))
    for _ in range(300):
        if "mnt-nfs" in open("/proc/mounts").read():
            break
        time.sleep(0.1)
    else:
        raise OSError("it is not mounted")
    open("/run/deaf", "w").close()
    looked = child("looked", lambda: os.stat("/mnt-nfs"))  # and is answered: that is the last answer
    time.sleep(1)
    return {"mounts": mounted, "looked": looked, "looks": child("looks", lambda: os.stat("/mnt-nfs"))}


def cifs(port: int) -> Parts:
    options = f"ip=127.0.0.1,port={port},user=u,pass=p,vers=3.0,unc=\\\\127.0.0.1\\x"
    return {"mounts": child("mounts", lambda: mount("cifs", "//127.0.0.1/x", options))}


def nvme(port: int) -> Parts:
    words = f"transport=tcp,traddr=127.0.0.1,trsvcid={port},nqn=nqn.2014-08.org.nvmexpress.discovery"

    def connect() -> None:
        with open("/dev/nvme-fabrics", "r+b", buffering=0) as file:
            file.write(words.encode())

    if not os.path.exists("/dev/nvme-fabrics"):
        raise FileNotFoundError("no /dev/nvme-fabrics")
    return {"connects": child("connects", connect)}


def nbd(port: int) -> Parts:
    """A process lends its socket to a block device, from which another one reads."""
    set_socket, set_size, do_it = 0xAB00, 0xAB07, 0xAB03

    def lend() -> None:
        import fcntl

        lent = socket.create_connection(("127.0.0.1", port))
        device = os.open("/dev/nbd0", os.O_RDWR)
        fcntl.ioctl(device, set_size, 4096)
        fcntl.ioctl(device, set_socket, lent.fileno())
        fcntl.ioctl(device, do_it)

    if not os.path.exists("/dev/nbd0"):
        raise FileNotFoundError("no /dev/nbd0")
    parts = {"lends": child("lends", lend)}
    time.sleep(2)
    parts["reads"] = child("reads", lambda: os.read(os.open("/dev/nbd0", os.O_RDONLY), 4096))
    return parts


AF_KCM, AF_SMC, SIOCKCMATTACH = 41, 43, 0x89E0
WHOLE = struct.pack("=BBhiBBhi", 0x61, 0x10, 0, 0, 0x95, 0, 0, 0)
"""A program that says that a message is as long as all there is: r0 = skb->len; exit."""


def kcm(port: int) -> Parts:
    """A process puts its connection below a socket of the multiplexor, on which another one sends."""
    import fcntl

    instructions, licence = ctypes.create_string_buffer(WHOLE), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", 1, 2, ctypes.addressof(instructions), ctypes.addressof(licence)).ljust(72, b"\0")
    above = socket.socket(AF_KCM, socket.SOCK_DGRAM)
    ready, gate = os.pipe()

    def lend() -> None:
        lent = socket.create_connection(("127.0.0.1", port))
        program = LIBC.syscall(321, 5, ctypes.create_string_buffer(attributes), len(attributes))
        fcntl.ioctl(above, SIOCKCMATTACH, struct.pack("ii", lent.fileno(), program))
        os.write(gate, b"r")
        KEPT.append(lent)

    parts = {"lends": child("lends", lend)}
    os.read(ready, 1)
    parts["sends"] = child("sends", lambda: above.send(b"x" * 100))
    above.close()
    return parts


KEPT: List[socket.socket] = []


def smc(port: int) -> Parts:
    """Its peer does not know of it: so it is TCP, by a socket that the kernel made below the process's own."""

    def use() -> None:
        used = socket.socket(AF_SMC, socket.SOCK_STREAM)
        KEPT.append(used)
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1"))
        # Python knows no addresses of that family.
        if LIBC.connect(used.fileno(), ctypes.create_string_buffer(address), 16):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        used.send(b"x")
        used.send(b"x")

    socket.socket(AF_SMC, socket.SOCK_STREAM).close()
    return {"uses": child("uses", use)}


def main() -> None:
    with open("/run/events", "wb") as out, open("/run/said", "wb") as err:
        command = [sys.executable, "-I", "-S", "/sockpid/runtime", "run", "--json", "--sharers"]
        probe = subprocess.Popen(command, stdout=out, stderr=err)
    for _ in range(600):
        if b"offsets from" in open("/run/said", "rb").read() or probe.poll() is not None:
            break
        time.sleep(0.1)
    found: Dict[str, Any] = {"hooks": open("/run/said").read()}
    ports: List[Tuple[str, int]] = []
    for name in sys.argv[1:]:
        listener = rpc.listener() if name == "nfs" else deaf_listener()
        port = listener.getsockname()[1]
        if name == "nfs":
            child("serves", functools.partial(rpc.serve, listener, hears_no_data, "/run/deaf"))
        try:
            found[name] = {"parts": globals()[name](port)}
        except OSError as error:
            found[name] = str(error)
            continue
        ports.append((name, port))
        KEPT.append(listener)
    time.sleep(3)
    probe.send_signal(signal.SIGINT)
    probe.wait()
    for name, port in ports:
        told = [json.loads(line) for line in open("/run/events") if f'"dport":{port},' in line.replace(": ", ":")]
        found[name]["events"] = told
    found["hooks"] = open("/run/said").read()
    for pid in PROCESSES:
        os.kill(pid, signal.SIGKILL)
    print(json.dumps(found))


main()
