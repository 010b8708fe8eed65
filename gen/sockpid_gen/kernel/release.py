"""What a kernel's release says: its place among others, and its flavour."""

from __future__ import annotations

import re
from typing import Tuple

_ARCHES = frozenset(
    (
        "x86_64", "amd64", "686", "i386", "aarch64", "arm64", "riscv64", "ppc64le", "ppc64el", "powerpc64le", "s390x",
        "armhf", "armv7l", "armv7hl", "arm",
    )
)  # fmt: skip
"""Architectures as distributions spell them."""

GENERIC = "generic"


def sort_key(text: str) -> Tuple[Tuple[int, int, str], ...]:
    """A key that puts versions in order: numbers by value, "7.3-rc1" and "7.3~rc1" before "7.3"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", re.sub("[-~]rc", "~", text))
    key = ((2, int(part), "") if part.isdigit() else (0 if part[0] == "~" else 1, 0, part) for part in parts)
    return (*key, (1, 0, ""))


def flavour(release: str) -> str:
    """The flavour of a distribution's kernel: "cloud" of "6.1.0-56-cloud-amd64", "generic" where there is none."""
    match = re.search(r"[0-9.](?:-((?!rc[0-9])[a-z][a-z0-9_]*(?:-[a-z0-9_]+)*))$", release)
    words = match.group(1).split("-") if match else []
    return "-".join(word for word in words if word not in _ARCHES) or GENERIC
