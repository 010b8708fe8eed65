"""One task of a crawl, done in a process or on a machine of its own: fetch a file, read the kernel, forget the file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from sockpid.errors import NoTypesError, SockpidError, SourceError
from sockpid_gen.archive import record
from sockpid_gen.kernel import nameless
from sockpid_gen.kernel.source import open_source

from . import apt
from .plan import File, Task, sum_of


class Outcome(NamedTuple):
    """What became of a task. kernel: the archive's record of it; else error: why there is none."""

    key: str
    kernel: Optional[Dict[str, Any]]
    error: Optional[str]


def run(task: Task, keep: Optional[str] = None) -> Outcome:
    """Reads the kernel of a task; no error gets out of here, one bad package must not stop the others.

    keep: a directory in which fetched packages are kept, and found again.
    """
    try:
        try:
            return Outcome(task.key, _read(task.file, keep), None)
        except NoTypesError:
            if task.debug is None:
                raise
            return Outcome(task.key, _read(task.debug, keep), None)
    except SockpidError as error:
        return Outcome(task.key, None, str(error))
    except Exception as error:  # a reader that fails in its own way has met a bad package, too
        return Outcome(task.key, None, f"{task.file.name}: {type(error).__name__}: {error}")


def _read(file: File, keep: Optional[str]) -> Dict[str, Any]:
    if not file.remote:
        path = Path(file.uri)
        try:
            changed = path.stat().st_mtime_ns != file.modified
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from None
        return _record(path, file, None if changed else file.sha256)
    if keep is not None:
        kept = Path(keep, file.name)
        known = sum_of(kept) if kept.exists() else None
        if known is None or known != (file.sha256 or known):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch.", dir=keep) as directory:
                fetched = Path(directory, file.name)
                apt.download(file.uri, file.sha256, fetched)
                fetched.replace(kept)
            known = file.sha256
        return _record(kept, file, known)
    with tempfile.TemporaryDirectory(prefix="sockpid-gen.") as directory:
        path = Path(directory, file.name)
        apt.download(file.uri, file.sha256, path)
        return _record(path, file, file.sha256)


def _record(path: Path, file: File, known: Optional[str]) -> Dict[str, Any]:
    """known: the SHA-256 of what is in `path`, if somebody has just read all of it; apt does when it fetches."""
    sha256 = known or sum_of(path)
    if file.sha256 not in (None, sha256):
        raise SourceError(f"{file.name}: its SHA-256 is {sha256}, not {file.sha256}")
    if nameless.is_nameless(path):
        return record.record_of_nameless(nameless.read(path), path.name, sha256)
    with open_source(path, sha256=sha256) as kernel:
        return record.record_of(kernel)
