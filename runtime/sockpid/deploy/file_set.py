"""Files put into a file system, all or none of them, and a record of what was put there.

The record has digests. So what replaces or removes them touches exactly these: a file that somebody else put there, or
has changed since, stays as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from sockpid import __version__
from sockpid.errors import InstallError

_NEW = ".sockpid-new"


class Placed:
    """What the record at the path `record` of the file system at `root` says was put there.

    files: digest by path. directories: those that were made for them. Both are empty where there is no record.
    """

    def __init__(self, root: str, record: str) -> None:
        """Raises InstallError if the record is damaged or cannot be read."""
        self._root = root
        self._record = record
        self.files: Dict[str, str] = {}
        self.directories: List[str] = []
        content = _read(self.at(record))
        if content is None:
            return
        try:
            document = json.loads(content)
            self.files, self.directories = dict(document["files"]), list(document["directories"])
        except (ValueError, KeyError, TypeError):
            raise InstallError(f"{self.at(record)} is damaged: what was installed is not known") from None

    def at(self, path: str) -> str:
        """Where a path of that file system lies now."""
        return os.path.join(self._root, path.lstrip("/"))

    def put(self, wanted: Mapping[str, Tuple[bytes, int]], hints: Mapping[str, str]) -> None:
        """Puts files in place, content and mode by path, instead of those of the record.

        hints: by path, what to say besides where a file of others stands there. Raises InstallError with nothing
        changed.
        """
        for path, (content, _) in wanted.items():
            self._demand_ours(path, content, hints.get(path, ""))
        before = self.files
        self._stage(wanted)
        for path in wanted:
            os.rename(self.at(path) + _NEW, self.at(path))
        self._remove([path for path in before if path not in wanted], before)
        _sync({os.path.dirname(self.at(path)) for path in wanted})

    def take_away(self) -> List[str]:
        """Removes what the record names, and the record. Returns what had to stay: it was changed since."""
        left = self._remove(list(self.files), self.files)
        os.unlink(self.at(self._record))
        for directory in sorted(self.directories, key=len, reverse=True):
            with contextlib.suppress(OSError):  # somebody else has put something there
                os.rmdir(self.at(directory))
        return left

    def _demand_ours(self, path: str, content: bytes, hint: str) -> None:
        found = _read(self.at(path))
        if found is None or found == content or _digest(found) == self.files.get(path):
            return
        why = "was changed since it was installed" if path in self.files else "is not sockpid's"
        raise InstallError(f"{self.at(path)} {why}; move it away first{hint}")

    def _stage(self, wanted: Mapping[str, Tuple[bytes, int]]) -> None:
        """Writes every file beside its place, then the record. On failure everything is as it was."""
        made: List[str] = []
        staged: List[str] = []
        try:
            for path, (content, mode) in wanted.items():
                made += self._make_directory(os.path.dirname(path))
                staged.append(self.at(path) + _NEW)
                _write(staged[-1], content, mode)
            files = {path: _digest(content) for path, (content, _) in wanted.items()}
            directories = sorted({*self.directories, *made})
            document = {"schema": 1, "version": __version__, "files": files, "directories": directories}
            staged.append(self.at(self._record) + _NEW)
            _write(staged[-1], (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), 0o644)
            os.rename(staged[-1], self.at(self._record))
        except OSError as error:
            for path in staged:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            for directory in reversed(made):
                with contextlib.suppress(OSError):
                    os.rmdir(self.at(directory))
            raise InstallError(f"write {error.filename or self._root}: {error.strerror}; nothing was changed") from None
        self.files, self.directories = files, directories

    def _remove(self, paths: Sequence[str], digests: Mapping[str, str]) -> List[str]:
        """Unlinks the files that are as recorded; returns the others."""
        left: List[str] = []
        for path in paths:
            found = _read(self.at(path))
            if found is None:
                continue
            if _digest(found) != digests[path]:
                left.append(path)
                continue
            try:
                os.unlink(self.at(path))
            except OSError as error:
                raise InstallError(f"remove {self.at(path)}: {error.strerror}") from None
            print(f"removed {self.at(path)}")
        return left

    def _make_directory(self, path: str) -> List[str]:
        """Makes a directory and its parents; returns those that were not there, the outermost first."""
        missing: List[str] = []
        while path not in ("", "/") and not os.path.isdir(self.at(path)):
            missing.insert(0, path)
            path = os.path.dirname(path)
        for directory in missing:
            os.mkdir(self.at(directory), 0o755)
            os.chmod(self.at(directory), 0o755)  # whatever the umask
        return missing


def _write(path: str, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def _read(path: str) -> Optional[bytes]:
    """What a file holds, None if there is none. Raises InstallError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"read {path}: {error.strerror}") from None


def _sync(directories: Iterable[str]) -> None:
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(fd)
        os.close(fd)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
