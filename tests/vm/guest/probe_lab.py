"""Runs in a guest, on the standard library alone: says as JSON what the lab promises to every test."""

import ctypes
import json
import os
import platform
import socket
import sys

BPF_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "armv7l": 386}
BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2


def loopback(family: socket.AddressFamily, address: str) -> str:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2], timeout=5) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"over the loopback")
                return accepted.recv(64).decode()


def create_map() -> int:
    """The errno of bpf(BPF_MAP_CREATE) for an array of four 8-byte values."""
    libc = ctypes.CDLL(None, use_errno=True)
    attr = (ctypes.c_uint32 * 5)(BPF_MAP_TYPE_ARRAY, 4, 8, 4, 0)
    fd = libc.syscall(BPF_CALL[platform.machine()], BPF_MAP_CREATE, ctypes.byref(attr), ctypes.sizeof(attr))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


print(
    json.dumps(
        {
            "release": platform.release(),
            "byte_order": sys.byteorder,
            "pointer_size": ctypes.sizeof(ctypes.c_void_p),
            "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
            "ipv4": loopback(socket.AF_INET, "127.0.0.1"),
            "ipv6": loopback(socket.AF_INET6, "::1"),
            "map_create": create_map(),
            "kprobe_pmu": int(read("/sys/bus/event_source/devices/kprobe/type")),
            "tracefs": os.path.exists("/sys/kernel/tracing/kprobe_events"),
            "notes": len(read("/sys/kernel/notes")),
            "sockpid": sorted(os.listdir("/sockpid")),
        }
    )
)
