"""An image is what it was linked as: nothing in it can be changed or taken away unseen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sockpid.errors import ImageError
from sockpid.image import content_digest, parse_image

ROOT = Path(__file__).parents[2]
IMAGES = ("sockpid.bpfel.json", "sockpid.bpfeb.json")


@pytest.fixture(params=IMAGES)
def content(request: pytest.FixtureRequest) -> bytes:
    return (ROOT / "bpf_bytecode" / str(request.param)).read_bytes()


def test_relocations_that_are_taken_away(content: bytes) -> None:
    """The offsets of compile time would stay in the instructions, and run."""
    lines = content.split(b"\n")
    found = [n for n, line in enumerate(lines) if b'"path": "sk_protocol"' in line and line.endswith(b"},")]
    less = b"\n".join(line for n, line in enumerate(lines) if n not in found)
    assert found
    json.loads(less)
    with pytest.raises(ImageError, match="not what its digest says"):
        parse_image(less, "image.json")


def test_every_part_counts(content: bytes) -> None:
    for key in (b'"insns"', b'"old": ', b'"kind": "byte_off"', b'"max_entries": ', b'"license": "'):
        at = content.index(key) + len(key)
        digit = next(n for n in range(at, at + 200) if chr(content[n]).isalnum())
        changed = content[:digit] + (b"1" if content[digit : digit + 1] != b"1" else b"2") + content[digit + 1 :]
        with pytest.raises(ImageError):
            parse_image(changed, "image.json")


@pytest.mark.parametrize("digest", [b"", b'"content": "' + b"0" * 64 + b'",', b'"content": 7,'])
def test_a_digest_that_is_missing_or_wrong(content: bytes, digest: bytes) -> None:
    other = re.sub(rb'"content": "[0-9a-f]{64}",', digest, content)
    assert other != content
    with pytest.raises(ImageError, match="not what its digest says"):
        parse_image(other, "image.json")


def test_the_digest_of_what_was_changed_is_another(content: bytes) -> None:
    """So the above is refused for the digest, and would be taken with the right one."""
    changed = content.replace(b'"max_entries": 8192', b'"max_entries": 4096')
    sealed = changed.replace(content_digest(content).encode(), content_digest(changed).encode())
    assert parse_image(sealed, "image.json").maps["counts"].max_entries == 4096
