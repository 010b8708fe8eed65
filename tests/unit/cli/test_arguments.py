"""Plain command lines are read as argparse reads them, or left to it."""

from __future__ import annotations

import argparse
import contextlib
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sockpid.cli import arguments, cli, parents, run
from sockpid.cli import parser as cli_parser
from sockpid.cli.arguments import argument
from sockpid.cli.shared import COMMON, FILTERS

FLAGS = [one.flag for one in (*COMMON, *run.RUN, *FILTERS)]
VALUES = [
    "1",
    "0",
    "-1",
    "1.5",
    "1e3",
    "nan",
    " 7",
    "eth0",
    "fentry",
    "file:/a,b=c",
    "a=b",
    "--",
    "-",
    "",
    "-x",
    "run",
    "٣",
]
WORD = st.one_of(
    st.sampled_from([*FLAGS, *VALUES, "-h", "--help", "--ver", "--js", "--out", "--no-seed=1", "--deny=ringbuf"]),
    st.builds("{}={}".format, st.sampled_from(FLAGS), st.sampled_from(VALUES)),
)


def by_argparse(words: list[str]) -> dict[str, object] | None:
    """What the parser of the whole command line finds; None where it refuses, or helps."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return vars(cli_parser.parser().parse_args(["run", *words]))
        except SystemExit:
            return None


@given(st.lists(WORD, max_size=5))
@example(["--count", "--pid", "7"])
@example(["--count", "2", "--pin", "--output", "table", "--output=json"])
def test_what_is_read_is_what_argparse_reads(words: list[str]) -> None:
    found = run.read(words)
    if found is not None:
        theirs = by_argparse(words)
        assert theirs is not None
        assert {k: repr(v) for k, v in vars(found).items()} == {k: repr(v) for k, v in theirs.items()}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--json", "--duration", "60"],
        ["--labels", "--label-env", "RANK,LOCAL_RANK"],
        ["--output", "table", "--output", "file:/var/log/x.jsonl,keep=7"],
        ["--attach=fentry", "--deny", "ringbuf", "--max-sockets", "100"],
        ["--count", "5", "--port", "9000"],
        ["--pin", "--keep", "--summary", "--config"],
    ],
)
def test_plain_words_take_no_argparse(words: list[str]) -> None:
    assert run.read(words) is not None


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--js"], ["--pid", "-1"], ["--pid", "x"], ["--attach", "x"], ["--duration"], ["--json=1"], ["x"]],
)
def test_the_rest_is_left_to_argparse(words: list[str]) -> None:
    assert run.read(words) is None


def test_mistakes_are_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--attach", "magic"])
    assert ended.value.code == 2
    assert "invalid choice: 'magic'" in capsys.readouterr().err


def test_only_what_read_understands_is_declared() -> None:
    """A way of add_argument() that `read` does not know must not be told to it in silence."""
    known = {"action", "nargs", "const", "type", "choices", "default", "metavar", "help"}
    for one in (*COMMON, *run.RUN, *FILTERS):
        assert one.told.keys() <= known, one.flag
        assert one.told.get("action") in (None, "store_true", "append")
        assert one.told.get("nargs") in (None, "?")


def test_a_default_is_not_appended_to() -> None:
    declared = (argument("--with", action="append", default=["a"]),)
    assert arguments.read(["--with", "b"], declared) == {"with": ["a", "b"]}
    assert declared[0].default == ["a"]


def test_help_has_no_sentence_beyond_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of a sentence are not cut by the terminal; indented examples are left as they are."""
    monkeypatch.setenv("COLUMNS", "80")
    parents._columns.cache_clear()
    try:
        (commands,) = (a for a in cli_parser.parser()._actions if isinstance(a, argparse._SubParsersAction))
        for name, parser in commands.choices.items():
            lines = parser.format_help().splitlines()
            assert [line for line in lines if line[:1].isupper() and len(line) > 80] == [], name
    finally:
        parents._columns.cache_clear()
