"""Our short cut to _json says what json says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sockpid import plain_json

ROOT = Path(__file__).parents[2]
VALUES: list[Any] = [
    {}, [], "", 0, -1, 1 << 80, 1.5, True, False, None, "ä\U0001f600\x00\\\"", [{"b": [1, {"a": None}], "a": "x"}],
]  # fmt: skip
BROKEN = [
    b"",
    b" ",
    b"{",
    b"[1,]",
    b"{} {}",
    b'{"a": 1} x',
    b'"\n"',
    b"\xff",
    b"nul",
    b'{"a"}',
    b"'a'",
]


@pytest.fixture(params=["_json", "json"])
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: a Python has one or the other."""
    way: str = request.param
    if way == "json":
        monkeypatch.setattr(plain_json, "_scan", None)
        monkeypatch.setattr(plain_json, "_encode", None)
    elif sys.implementation.name == "cpython":
        assert plain_json._scan is not None
        assert plain_json._encode is not None
    return way


@pytest.mark.parametrize("value", VALUES)
def test_values_are_those_of_json(ours: str, value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False) + "\n"):
        assert plain_json.loads(text.encode()) == json.loads(text) == value
    assert plain_json.canonical(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("text", BROKEN)
def test_errors_are_those_of_json(ours: str, text: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)) as theirs:
        json.loads(text)
    with pytest.raises(type(theirs.value)) as found:
        plain_json.loads(text)
    assert str(found.value) == str(theirs.value)


def test_what_is_rare_is_as_in_json(ours: str) -> None:
    assert math.isnan(plain_json.loads(b"NaN"))
    assert plain_json.loads(b'{"a": 1, "a": 2}') == {"a": 2}
    for encoding in ("utf-16", "utf-8-sig"):
        assert plain_json.loads('["ä"]'.encode(encoding)) == ["ä"]
    with pytest.raises(RecursionError):
        plain_json.loads(b"[" * 100_000)
    with pytest.raises(TypeError):
        plain_json.canonical({1, 2})


def test_the_files_that_travel_along_are_read_without_json() -> None:
    script = (
        "import sys; sys.path.insert(0, 'runtime'); from sockpid.image import image; from sockpid.table import table\n"
        "image.parse_image(open('bpf_bytecode/sockpid.bpfel.json', 'rb').read(), '')\n"
        "shard = table.parse_shard(open('offsets/x86_64/6.1.json', 'rb').read(), '')\n"
        "shard.layout(shard.entries[0])\n"
        "assert sys.implementation.name != 'cpython' or 'json' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("text", BROKEN)
def test_errors_are_the_same_before_json_is_imported(text: bytes) -> None:
    script = (
        "import sys; sys.path.insert(0, 'runtime'); from sockpid import plain_json\n"
        f"try: plain_json.loads({text!r})\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=ROOT, check=True, capture_output=True)
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)) as theirs:
        json.loads(text)
    assert done.stdout.decode().rstrip("\n") == f"{type(theirs.value).__name__} {theirs.value}"
