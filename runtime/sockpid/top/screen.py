"""The terminal of `top`: keys in, lines out, and everything as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from typing import Any, List, Sequence, Tuple

from .view import Line, ansi

ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the other screen, no cursor
LEAVE = "\x1b[?25h\x1b[0m\x1b[?1049l"
KEYS = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "[5~": "pageup", "[6~": "pagedown", "[H": "home", "[F": "end", "OH": "home", "OF": "end", "[1~": "home",
    "[4~": "end",
}  # fmt: skip
PLAIN = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw"}
SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Za-z])")


def decode(data: str) -> List[str]:
    """Keys out of what a terminal sent: characters as they are, others by name. An escape on its own is the key."""
    keys: List[str] = []
    while data:
        found = SEQUENCE.match(data)
        if found:
            keys += [KEYS[found.group(1)]] if found.group(1) in KEYS else []
            data = data[found.end() :]
            continue
        keys.append("escape" if data[0] == "\x1b" else PLAIN.get(data[0], data[0]))
        data = data[1:]
    return keys


class Screen:
    """Open from `with` to its end, also through a stop and continuation by the shell (Ctrl-Z)."""

    def __init__(self, keyboard: int, display: int, colour: bool) -> None:
        """keyboard, display: descriptors of the terminal."""
        self._keyboard, self._display, self._colour = keyboard, display, colour
        self._before: Any = None
        self._shown: List[str] = []
        self._size = (0, 0)
        self._handler: Any = None

    def __enter__(self) -> Screen:
        self._before = termios.tcgetattr(self._keyboard)
        self._handler = signal.signal(signal.SIGTSTP, self._stop)
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTSTP, self._handler)
        self._end()

    def _begin(self) -> None:
        tty.setcbreak(self._keyboard, termios.TCSANOW)
        self._write(ENTER)
        self._size = (0, 0)

    def _end(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            self._write(LEAVE)
            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._before)

    def _stop(self, _number: int, _frame: Any) -> None:
        self._end()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._begin()

    def size(self) -> Tuple[int, int]:
        """Columns and lines."""
        found = os.get_terminal_size(self._display)
        return max(20, found.columns), max(8, found.lines)

    def draw(self, lines: Sequence[Line]) -> None:
        """Writes the lines that are not on the screen already."""
        width, height = self.size()
        if self._size != (width, height):
            self._size, self._shown = (width, height), []
        wanted = [ansi(line, self._colour) for line in lines[:height]]
        out = [] if self._shown else ["\x1b[0m\x1b[2J"]
        for number, text in enumerate(wanted):
            if number >= len(self._shown) or self._shown[number] != text:
                out.append(f"\x1b[{number + 1};1H\x1b[2K{text}")
        self._shown = wanted
        if out:
            self._write("".join(out))

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._display, data) :]

    def typed(self) -> List[str]:
        """The keys that were typed, without waiting for more. Raises EOFError if the terminal is gone."""
        try:
            data = os.read(self._keyboard, 1024)
            while data.endswith(b"\x1b") and select.select([self._keyboard], [], [], 0.03)[0]:
                data += os.read(self._keyboard, 1024)  # the rest of a key that began so
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return decode(data.decode("utf-8", "replace"))
