from __future__ import annotations

import struct

import pytest

from sockpid.elf_notes import build_id, parse_notes


def note(prefix: str, name: bytes, kind: int, desc: bytes) -> bytes:
    padded = [part + bytes(-len(part) % 4) for part in (name, desc)]
    return struct.pack(prefix + "III", len(name), len(desc), kind) + b"".join(padded)


@pytest.mark.parametrize(("byte_order", "prefix"), [("little", "<"), ("big", ">")])
def test_all_notes_in_order(byte_order: str, prefix: str) -> None:
    data = note(prefix, b"Linux\0", 0, b"\1\2\3\4") + note(prefix, b"GNU\0", 3, b"\xaa" * 5) + note(prefix, b"", 7, b"")
    assert list(parse_notes(data, byte_order)) == [("Linux", 0, b"\1\2\3\4"), ("GNU", 3, b"\xaa" * 5), ("", 7, b"")]
    assert build_id(data, byte_order) == "aaaaaaaaaa"


def test_only_gnus_note_of_type_3_is_the_build_id() -> None:
    data = note("<", b"Xen\0", 3, b"\1") + note("<", b"GNU\0", 5, b"\2")
    assert build_id(data, "little") is None
    assert build_id(b"", "little") is None


def test_truncated_notes_end_quietly() -> None:
    data = note("<", b"GNU\0", 3, b"\xaa" * 20)
    for size in range(len(data)):
        assert build_id(data[:size], "little") is None
