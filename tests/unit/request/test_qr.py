"""QR codes, read by a decoder that is not ours: every version, and requests on their way to `sockpid-gen fulfil`."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zxingcpp

from sockpid.errors import RequestError, UsageError
from sockpid.request import codes as scanned
from sockpid.request import qr, request
from tests.unit.request.test_request import ASKED

ROOT = Path(__file__).parents[3]
SCALE = 3
GLYPHS = {"█": "00", "▀": "01", "▄": "10", " ": "11"}


def read(rows: list[str]) -> str:
    """What the decoder sees in a picture of these modules ("0" is light)."""
    width = len(rows[0]) * SCALE
    picture = b"".join(
        b"".join((b"\0" if module == "1" else b"\xff") * SCALE for module in row) * SCALE for row in rows
    )
    (found,) = zxingcpp.read_barcodes(memoryview(picture).cast("B", (len(rows) * SCALE, width)))
    return str(found.text)


def modules(lines: list[str]) -> list[str]:
    """The modules that lines of half blocks show."""
    return ["".join(GLYPHS[c][half] for c in line) for line in lines for half in (0, 1)]


@pytest.mark.parametrize("version", [*range(1, 15), 20, 22, 26, 27, 32, 40])
def test_every_character_in_every_version(version: int) -> None:
    """Filled to the last character: what is longer takes the next version, or is refused."""
    chosen = random.Random(version)
    text = "".join(chosen.choices(qr.ALPHABET, k=qr.capacity(version)))
    rows = qr.encode(text)
    assert len(rows) == qr.size(version)
    assert read(modules(qr.lines(rows))) == text
    if version == 40:
        with pytest.raises(UsageError, match="4297 characters do not fit"):
            qr.encode(text + "A")


@pytest.mark.parametrize("text", ["A", "0", "AB", "HTTP://", " $%*+-./:", "A" * 24, "01" * 60])
def test_short_ends_and_padding(text: str) -> None:
    assert read(modules(qr.lines(qr.encode(text)))) == text


LONG = ASKED._replace(facts=tuple((f"key{n}", random.Random(n).randbytes(60).hex()) for n in range(20)))


@pytest.mark.parametrize(
    ("asked", "columns", "codes"), [(ASKED, 200, 1), (ASKED, 80, 2), (ASKED, 40, 14), (LONG, 80, 5)]
)
def test_a_request_is_read_from_the_terminal(asked: request.Request, columns: int, codes: int) -> None:
    shown = scanned.codes(asked.text, columns, True)
    assert all(len(re.sub("\x1b[^m]*m", "", line)) <= columns for line in shown)
    plain = "\n".join(shown).replace("\x1b[37;40m", "").replace("\x1b[0m", "")
    pieces = [piece.splitlines()[1:] for piece in plain.split("code ")[1:]]
    texts = [read(modules(piece)) for piece in pieces]
    assert len(texts) == codes
    random.Random(1).shuffle(texts)
    typed = "\n".join(texts).lower().replace("aa", "a\n  a")  # lower case, wrapped, in any order
    assert scanned.is_scanned(typed)
    assert request.parse(scanned.join(typed, "scanned.txt"), "scanned.txt") == asked


def test_what_is_missing_mixed_or_mistaken_is_said() -> None:
    parts, others = (scanned.split(asked.text, 50) for asked in (ASKED, ASKED._replace(release="6.1.1")))
    assert len(parts) > 3
    with pytest.raises(RequestError, match=rf"of {len(parts)} codes these are missing: 2, 3$"):
        scanned.join("\n".join([parts[0], *parts[3:]]), "x")
    with pytest.raises(RequestError, match="of 2 requests"):
        scanned.join("\n".join([*parts[1:], others[0]]), "x")
    with pytest.raises(RequestError, match="of 0 requests"):
        scanned.join("SOCKPID/", "x")
    head, letters = parts[1].rsplit("/", 1)
    for wrong in (
        letters[:-1],
        letters[1:] + letters[0],
        letters[:5] + ("A" if letters[5] != "A" else "B") + letters[6:],
    ):
        with pytest.raises(RequestError, match="copied with a mistake"):
            scanned.join("\n".join([parts[0], f"{head}/{wrong}", *parts[2:]]), "x")


def test_the_command_asks_for_a_terminal_that_can_show_them() -> None:
    for arguments, encoding, said in (
        (["--qr"], "utf-8", "--qr is for --request"),
        (["--request", "--qr"], "ascii", "--qr: QR codes take a UTF-8 terminal"),
    ):
        command = [sys.executable, "-S", str(ROOT / "runtime"), "doctor", *arguments]
        environment = {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, said in done.stderr) == (UsageError.exit_code, True), done
