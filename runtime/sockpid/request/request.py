"""The request: what a host says of a kernel nobody has seen, as a text that a person can read and carry.

It holds what finds and proves the kernel's package, and facts that help where there is none. It holds no host name, no
address, no command line; who built the kernel is left out of the banner unless it is a distribution that says so of all
its kernels. docs/unknown-kernels.md is its definition.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from typing import Dict, List, Match, NamedTuple, Optional, Tuple

from sockpid.errors import RequestError

VERSION = 1
WIDTH = 100

_FIRST = "sockpid-request"
_PUBLIC_BUILDERS = ("debian-kernel@lists.debian.org",)
_BUILDER = re.compile(r"\A(Linux version \S+ )\(([^()]*)\)")
_FORMS = {
    "build-id": r"none|([0-9a-f]{2})+",
    "release": r"[0-9]+\.[0-9]+[!-.0-~]*",  # ASCII, no blank, no slash
    "arch": r"[a-z0-9_]+",
    "banner": r"Linux version .*",
    "banner-sha256": r"[0-9a-f]{64}",
}


class Request(NamedTuple):
    """A request. build_id: None where the kernel has none or hides it. banner: without its builder.

    banner_sha256: of the whole banner, in hex: proves a package where there is no build-id. facts: everything else by
    key, in the order in which it is written: for people, and for what a later version may make of it.
    """

    build_id: Optional[str]
    release: str
    arch: str
    banner: str
    banner_sha256: str
    facts: Tuple[Tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The request as it is carried. Lines are folded; a line that begins with a blank goes on with the last."""
        rows = [
            (_FIRST, str(VERSION)),
            ("build-id", self.build_id or "none"),
            ("release", self.release),
            ("arch", self.arch),
            ("banner", self.banner),
            ("banner-sha256", self.banner_sha256),
            *self.facts,
        ]
        lines: List[str] = []
        for key, value in rows:
            lines += textwrap.wrap(
                f"{key:<15} {value}", WIDTH, subsequent_indent=" " * 16, break_long_words=False, break_on_hyphens=False
            )
        return "\n".join([*lines, f"{'check':<15} {_check(lines)}"]) + "\n"

    def is_of(self, banner: str) -> bool:
        """Whether the banner of a kernel is that of the kernel that asks."""
        return digest(banner) == self.banner_sha256


def digest(banner: str) -> str:
    """SHA-256 of a version banner without white space at its end, in hex."""
    return hashlib.sha256(banner.rstrip().encode("utf-8", "replace")).hexdigest()


def without_builder(banner: str) -> str:
    """The banner without user and host that built the kernel, unless they are a distribution's public ones."""

    def replacement(match: Match[str]) -> str:
        return match.group() if match.group(2) in _PUBLIC_BUILDERS else match.group(1) + "(-)"

    return _BUILDER.sub(replacement, " ".join(banner.split()))


def parse(text: str, name: str) -> Request:
    """Reads a request; `name` is the file's, for messages. Raises RequestError: copying mistakes, other versions."""
    lines = [line.rstrip() for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    rows: List[Tuple[str, str]] = []
    for line in lines:
        if line[0].isspace() and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}".strip())
        else:
            key, *value = line.split(None, 1)
            rows.append((key, "".join(value)))
    values: Dict[str, str] = dict(rows)
    if not rows or rows[0][0] != _FIRST:
        raise RequestError(f"{name} is no request: it does not begin with {_FIRST!r} (`sockpid doctor --request`)")
    if values[_FIRST] != str(VERSION):
        raise RequestError(f"{name} is a request of version {values[_FIRST]}; this program reads version {VERSION}")
    if rows[-1][0] != "check":
        raise RequestError(f"{name} is not complete: its last line is not the check")
    if rows[-1][1] != _check(lines[:-1]):
        raise RequestError(
            f"{name} was altered or copied with a mistake: its check is {rows[-1][1]}, not {_check(lines[:-1])}"
        )
    for key, form in _FORMS.items():
        if not re.fullmatch(form, values.get(key, "")):
            raise RequestError(f"{name}: {key} {values.get(key, '(missing)')!r} is none")
    build_id = values["build-id"]
    return Request(
        None if build_id == "none" else build_id,
        values["release"],
        values["arch"],
        values["banner"],
        values["banner-sha256"],
        tuple(row for row in rows[1:-1] if row[0] not in _FORMS),
    )


def _check(lines: List[str]) -> str:
    """16 hex digits over everything but white space, which copying changes."""
    return hashlib.sha256("".join("".join(lines).split()).encode("utf-8", "replace")).hexdigest()[:16]
