"""What a guest sends over its console comes back whole, though a real-time kernel loses some of it."""

from __future__ import annotations

import base64
import gzip
import io
import random
import tarfile

import pytest

from tests.vm import qemu

CONTENT = {"status": b"0", "stdout": b"out", "stderr": b"", "large": random.Random(1).randbytes(20_000)}


def packed() -> list[str]:
    """The lines that pack() of tests/vm/init gives."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in CONTENT.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    text = base64.b64encode(gzip.compress(buffer.getvalue())).decode()
    return [text[at : at + 76] for at in range(0, len(text), 76)]


def numbered() -> list[str]:
    return [f"{number:07d} {line}" for number, line in enumerate(packed(), 1)]


def console(lines: list[str]) -> bytes:
    return "\r\n".join(["--- command", "--- result", *lines, "--- end", ""]).encode()


def large(raw: bytes) -> bytes:
    return qemu._result(raw, 1.0, "").files["large"]


def test_lines_as_they_are() -> None:
    assert large(console(packed())) == CONTENT["large"]


def test_what_is_lost_once_is_there_a_second_time() -> None:
    first, second = numbered(), numbered()
    first[10:12] = [first[10][:50] + first[11][20:]]
    first[40] = first[40][:30]
    second[-1] = second[-1][:12]
    second[100] = ""
    assert large(console([*first, *second])) == CONTENT["large"]


def test_what_is_lost_twice_is_no_result() -> None:
    lines = numbered()
    lines[40] = lines[40][:30]
    with pytest.raises(qemu.GuestError, match="incomplete"):
        large(console([*lines, *lines]))
