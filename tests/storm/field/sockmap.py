"""A sockmap: what is written to one socket leaves by another one, which the writer need not have open."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from tests.accuracy.field import filters
from tests.accuracy.field.processes import syscall

from . import held as tcp
from . import record
from .kinds import kind
from .opening import connected, two
from .process import Process

SYS_BPF = {"x86_64": 321, "aarch64": 280, "arm": 386, "ppc64le": 361, "s390x": 351, "riscv64": 280}
BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_PROG_ATTACH = 0, 2, 5, 8
BPF_MAP_TYPE_SOCKMAP, BPF_PROG_TYPE_SK_MSG, BPF_SK_MSG_VERDICT = 15, 16, 7
FUNC_MSG_REDIRECT_MAP = 60
WRITTEN, LEAVES_BY = 0, 1


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, 128)
    return syscall("bpf", SYS_BPF[os.uname().machine.replace("armv7l", "arm")], command, ctypes.addressof(buffer), 128)


def _instruction(code: int, target: int, source: int, value: int) -> bytes:
    registers = target | source << 4 if sys.byteorder == "little" else target << 4 | source
    return struct.pack("=BBhi", code, registers, 0, value)


def _redirect(to: int) -> int:
    """A program that sends every message by another socket of the map."""
    code = _instruction(0x18, 2, 1, to) + _instruction(0, 0, 0, 0)  # r2 = map
    code += _instruction(0xB7, 3, 0, LEAVES_BY) + _instruction(0xB7, 4, 0, 0)
    code += _instruction(0x85, 0, 0, FUNC_MSG_REDIRECT_MAP) + _instruction(0x95, 0, 0, 0)
    text, gpl = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    pointers = (ctypes.addressof(text), ctypes.addressof(gpl))
    return _bpf(BPF_PROG_LOAD, struct.pack("=IIQQ", BPF_PROG_TYPE_SK_MSG, len(code) // 8, *pointers))


def _put(into: int, key: int, descriptor: int) -> None:
    number, value = ctypes.c_uint32(key), ctypes.c_uint32(descriptor)
    words = (into, ctypes.addressof(number), ctypes.addressof(value), 0)
    _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("=IxxxxQQQ", *words))


@kind(1.5)
def sockmap(process: Process) -> None:
    """a child writes to a socket of its own, and the data leaves by one that only this process has"""
    if "sockmap" in process.missing:
        return
    peer = process.listener("deaf", "inet", filters.DATA)
    written, leaves_by = connected(process, peer), connected(process, peer)
    two(process, leaves_by)
    try:
        both = _bpf(BPF_MAP_CREATE, struct.pack("=IIIII", BPF_MAP_TYPE_SOCKMAP, 4, 4, 2, 0))
    except OSError as error:
        process.missing["sockmap"] = str(error)
        return
    program = -1
    try:
        program = _redirect(both)
        _bpf(BPF_PROG_ATTACH, struct.pack("=IIII", both, program, BPF_SK_MSG_VERDICT, 0))
        for place, each in ((WRITTEN, written), (LEAVES_BY, leaves_by)):
            process.log.note(record.LEND, each.inode)
            _put(both, place, each.fileno)

        def writer(child: Process) -> None:
            for _ in range(3):
                tcp.use(child.log, record.SOCKMAP, written, lambda held: held.sock.send(b"x"))

        process.fork(writer, [written])
        process.reap(block=not process.ends)
    except OSError as error:
        process.missing["sockmap"] = str(error)
    finally:
        os.close(both)
        if program >= 0:
            os.close(program)
        process.drop(written)
