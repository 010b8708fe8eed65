"""Options from a file: as on the command line, which wins; mistakes name what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sockpid.cli import cli, run
from sockpid.errors import UsageError
from sockpid.run import config
from sockpid.run.options import RunOptions

TOML = """
output = ["journald", "file:/var/log/sockpid.jsonl,keep=7"]
labels = true
label-env = ["RANK", "LOCAL_RANK"]
max-sockets = 4096
pin = true
port = 9000
duration = 2.5
"""


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def arguments(path: str, *words: str) -> Any:
    return run._with_file(path, words)


def wishes(path: str, *words: str) -> RunOptions:
    return run.wishes(arguments(path, *words))


@pytest.fixture
def toml(tmp_path: Path) -> str:
    return write(tmp_path / "config.toml", TOML)


def test_toml_json_and_command_line_are_the_same(toml: str, tmp_path: Path) -> None:
    document = {
        "output": ["journald", "file:/var/log/sockpid.jsonl,keep=7"], "labels": True, "label-env": "RANK,LOCAL_RANK",
        "max-sockets": 4096, "pin": True, "port": 9000, "duration": 2.5,
    }  # fmt: skip
    written = write(tmp_path / "config.json", json.dumps(document))
    words = ["--output", "journald", "--output", "file:/var/log/sockpid.jsonl,keep=7", "--labels"]
    words += ["--label-env", "RANK,LOCAL_RANK", "--max-sockets", "4096", "--pin", "--port", "9000", "--duration", "2.5"]
    empty = write(tmp_path / "empty.toml", "")
    assert wishes(toml) == wishes(written) == wishes(empty, *words)
    assert vars(arguments(toml)) == vars(arguments(empty, *words))


def test_the_command_line_wins(toml: str) -> None:
    """Also with what is the default, and as a whole: outputs of both are not mixed."""
    found = arguments(toml, "--max-sockets", "8192", "--output", "table", "--port=1")
    assert (found.max_sockets, found.output, found.port) == (8192, ["table"], 1)
    assert wishes(toml, "--json").outputs == ("journald", "file:/var/log/sockpid.jsonl,keep=7")
    assert wishes(toml, "--json", "--output", "table").outputs == ("table", "json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_sockets = 1", "unknown option 'max_sockets'; the nearest is 'max-sockets'"),
        ("outputs = []", "unknown option 'outputs'; the nearest is 'output'"),
        ("xyzzy = 1", "unknown option 'xyzzy' ("),
        ("config = 'x'", "unknown option 'config'"),
        ("help = true", "unknown option 'help'"),
        ("json = 1", "json = 1: true or false is wanted"),
        ("json = 'yes'", "true or false is wanted"),
        ("max-sockets = true", "max-sockets = true: a value is wanted"),
        ("max-sockets = 'many'", 'max-sockets = "many": a number is wanted'),
        ("max-sockets = 1.5", "a number is wanted"),
        ("port = [1]", "port = [1]: a number is wanted"),
        ("comm = 7", "comm = 7: text is wanted"),
        ("comm = ['a', 'b']", "text is wanted"),
        ("output = [1]", "text is wanted"),
        ("host = 1979-05-27", "text is wanted"),
        ("attach = 'magic'", 'attach = "magic": none of fentry, raw_tp'),
        ("labels = ['colour']", "--labels: colour is none of"),
        ("cidr = 'x'", "--cidr x"),
        ("= 1", "Invalid"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        wishes(write(tmp_path / "config.toml", text))
    assert said in str(raised.value)


def test_false_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    found = arguments(write(tmp_path / "c.toml", "sharers = false\npin = false\ncount = false"))
    assert (found.sharers, found.pin, found.count) == (False, None, None)


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.place(str(tmp_path)) is None
    first = write(tmp_path / "config.json", "{}")
    assert config.place(str(tmp_path)) == first
    write(tmp_path / "config.toml", "")
    with pytest.raises(UsageError, match="take one of them away"):
        config.place(str(tmp_path))
    monkeypatch.setattr(config, "DIRECTORY", str(tmp_path / "none"))
    assert arguments(str(first)).output is None


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        arguments(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="no object"):
        arguments(write(tmp_path / "list.json", "[]"))
    with pytest.raises(UsageError, match="Expecting"):
        arguments(write(tmp_path / "bad.json", "{"))


def test_a_python_without_toml_says_so(toml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    with pytest.raises(UsageError, match=r"this Python reads no TOML .* write it as JSON"):
        config.read(toml)


@pytest.mark.parametrize(
    ("words", "at"),
    [
        (["run"], 0),
        (["--require-signature", "keys", "run", "--pin", "run"], 2),
        (["--require-signature", "run", "run"], 2),
        (["--require-signature=run", "run"], 1),
    ],
)
def test_where_the_command_stands(words: list[str], at: int) -> None:
    assert cli._command_at(words) == at
