"""Where the lab keeps what it downloaded or built: `.cache/` in the checkout, or $SOCKPID_CACHE."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def directory(*parts: str) -> Path:
    """The cache's directory for `parts`, created if need be."""
    root = Path(os.environ.get("SOCKPID_CACHE") or CHECKOUT / ".cache").resolve()
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the directory `path` against every other process that asks. Released by the kernel if we die."""
    fd = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write(path: Path, content: bytes) -> Path:
    """Create `path` with `content`: whole or not at all."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path
