"""A real terminal for tests: tmux, its keys, its screen, and that screen as a page for a browser."""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SGR = re.compile(r"\x1b\[([0-9;]*)m")
COLOURS = {31: "#ff6b6b", 32: "#69db7c", 33: "#ffd43b", 34: "#74c0fc", 35: "#da77f2", 36: "#66d9e8"}
PAGE = """<!doctype html><meta charset="utf-8"><title>terminal</title>
<style>body{{margin:0;background:#101418}}pre{{margin:12px;font:15px/1.25 "DejaVu Sans Mono",monospace;color:#d8dee4;
display:inline-block}}b{{color:#fff}}</style><pre>{}</pre>"""


class Tmux:
    """A shell in a tmux of our own. Ends with the `with` block."""

    def __init__(self, columns: int = 120, lines: int = 30) -> None:
        assert shutil.which("tmux"), "tmux is not installed: make setup-test"
        self._directory = tempfile.mkdtemp(prefix="sockpid-tmux-")
        size = ["-x", str(columns), "-y", str(lines)]
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PS1": "$ ", "ENV": ""}
        self._environment = {name: value for name, value in environment.items() if name not in ("NO_COLOR", "TMUX")}
        self("-f", "/dev/null", "new-session", "-d", *size, "/bin/sh")

    def __call__(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", f"{self._directory}/socket", *arguments]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=20, cwd="/"
        )
        assert done.returncode == 0, done
        return done.stdout

    def type(self, *keys: str) -> None:
        """Keys as tmux names them: q, Enter, Escape, Up."""
        self("send-keys", *keys)

    def command(self, *words: str) -> None:
        self("send-keys", "-l", shlex.join(words))
        self("send-keys", "Enter")

    def text(self) -> str:
        """What is on the screen."""
        return self("capture-pane", "-p")

    def coloured(self) -> str:
        return self("capture-pane", "-p", "-e", "-N")

    def wait(self, wanted: str | Callable[[str], object], seconds: float = 20) -> str:
        """Until a text is on the screen, or a function of it says so; returns the screen."""
        end = time.monotonic() + seconds
        while True:
            shown = self.text()
            if wanted in shown if isinstance(wanted, str) else wanted(shown):
                return shown
            assert time.monotonic() < end, f"not {wanted!r}:\n{shown}"
            time.sleep(0.05)

    def resize(self, columns: int, lines: int) -> None:
        self("resize-window", "-x", str(columns), "-y", str(lines))

    def page(self, path: Path) -> Path:
        """The screen as it looks, as a page."""
        path.write_text(PAGE.format(to_html(self.coloured())))
        return path

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["tmux", "-S", f"{self._directory}/socket", "kill-server"], check=False, capture_output=True)
        shutil.rmtree(self._directory)


def to_html(text: str) -> str:
    """Text with the escapes that `top` uses: bold, dim, reverse, eight colours."""
    made: list[str] = []
    codes: set[int] = set()
    position = 0
    for found in [*SGR.finditer(text), None]:
        piece = text[position : found.start() if found else len(text)]
        if piece:
            made.append(f'<span style="{_style(codes)}">{html.escape(piece)}</span>' if codes else html.escape(piece))
        if found:
            position = found.end()
            for code in (int(number or 0) for number in found.group(1).split(";")):
                colour = code == 39 or code in COLOURS
                codes = set() if code == 0 else {c for c in codes if not (colour and c in COLOURS)} | {code}
    return "".join(made)


def _style(codes: set[int]) -> str:
    front = next((COLOURS[code] for code in codes if code in COLOURS), "#d8dee4")
    rules = [f"background:{front};color:#101418" if 7 in codes else f"color:{front}"]
    rules += ["font-weight:bold"] if 1 in codes else []
    rules += ["opacity:.55"] if 2 in codes else []
    return ";".join(rules)
