"""An image is what it was linked as: nothing in it can be changed or taken away unseen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sockpid import data
from sockpid.errors import ImageError
from sockpid.image.image import content_digest, file_name, parse_image
from sockpid.probe import tracer
from sockpid_gen.image import digests

ROOT = Path(__file__).parents[3]
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


@pytest.mark.parametrize("order", ["little", "big"])
def test_no_image_but_those_of_this_code_is_loaded(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed as it should be, with the offsets of compile time left in its instructions."""
    ours = (ROOT / "bpf_bytecode" / file_name(order)).read_bytes()
    assert tracer.load_image(order).content == content_digest(ours)
    fewer = re.sub(rb'    \{"insn": [0-9]+, "kind": "byte_off"[^}]*"path": "sk_protocol"[^}]*\},\n', b"", ours)
    sealed = fewer.replace(content_digest(ours).encode(), content_digest(fewer).encode())
    assert parse_image(sealed, "image.json")
    monkeypatch.setattr(data, "read", lambda _: sealed)
    with pytest.raises(ImageError, match=r"bpf_bytecode/.* is not the image that this sockpid was made with"):
        tracer.load_image(order)


def test_the_digests_in_the_code_are_made_anew_with_the_images() -> None:
    assert (ROOT / "runtime/sockpid/image/digests.py").read_text() == digests.module(ROOT / "bpf_bytecode")
