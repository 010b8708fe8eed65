"""`sockpid install` and `uninstall`: the bundle and what belongs to it, put in place whole or not at all.

What was written is kept in a record with digests. So an upgrade replaces, and uninstalling removes, exactly that: a
file that somebody else put there or has changed since is never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from . import __version__, data, kernel, pin, unit
from .commands import Command
from .completion import scripts
from .errors import InstallError, UsageError
from .manual import page
from .process import run
from .uapi import CAP_BPF

SUMMARY = "says which process owns a TCP socket when the kernel retransmits for it"
FILES = """
/etc/sockpid/config.toml or config.json: options of `sockpid run --config` and of the service; keys are the options'
names. SIGHUP reads it again.

/etc/default/sockpid: SOCKPID_OPTIONS, more options of the service; they win.

/etc/sockpid/offsets.d/*.json: further offset tables.
"""
_NEW = ".sockpid-new"


class Place(NamedTuple):
    """root: of the file system to install into. prefix: within it. python: what runs the bundle there."""

    root: str
    prefix: str
    python: str

    @property
    def record(self) -> str:
        return f"{self.prefix}/lib/sockpid/installed.json"

    @property
    def bundle(self) -> str:
        return f"{self.prefix}/lib/sockpid/sockpid.pyz"

    def at(self, path: str) -> str:
        """Where a path of the installed system lies now."""
        return os.path.join(self.root, path.lstrip("/"))


def files(
    place: Place, bundle: bytes, commands: Sequence[Command], knows_cap_bpf: bool, systemd: int
) -> Dict[str, Tuple[bytes, int]]:
    """What an installation consists of: content and mode by path."""
    prefix, shells = place.prefix, scripts("sockpid", commands)
    wrapper = unit.WRAPPER.format(python=place.python, bundle=place.bundle)
    manual = page("sockpid", 8, __version__, SUMMARY, commands, {"files": FILES})
    service = unit.unit(place.python, place.bundle, knows_cap_bpf, systemd)
    texts = {
        f"{prefix}/sbin/sockpid": (wrapper, 0o755),
        f"{prefix}/lib/systemd/system/{unit.NAME}": (service, 0o644),
        f"{prefix}/lib/tmpfiles.d/sockpid.conf": (unit.TMPFILES, 0o644),
        f"{prefix}/share/bash-completion/completions/sockpid": (shells["bash"], 0o644),
        f"{prefix}/share/zsh/vendor-completions/_sockpid": (shells["zsh"], 0o644),
        f"{prefix}/share/fish/vendor_completions.d/sockpid.fish": (shells["fish"], 0o644),
        f"{prefix}/share/man/man8/sockpid.8": (manual, 0o644),
    }
    return {place.bundle: (bundle, 0o644), **{path: (text.encode(), mode) for path, (text, mode) in texts.items()}}


def install(place: Place, commands: Sequence[Command], start: bool) -> int:
    """Puts everything in place, and tells systemd if it runs. Raises UsageError, InstallError with nothing changed."""
    archive = data.archive()
    if archive is None:
        raise UsageError("install works from a bundle: python3 sockpid.pyz install (`sockpid-gen bundle` makes one)")
    with open(archive, "rb") as file:
        here = place.root == "/"
        knows_cap_bpf = kernel.knows_capability(CAP_BPF) or not here
        wanted = files(place, file.read(), commands, knows_cap_bpf, _systemd_version() if here else 0)
    record = _read_record(place)
    for path, (content, _) in wanted.items():
        _demand_ours(place, path, content, record)
    _stage(place, wanted, record)
    for path in wanted:
        os.rename(place.at(path) + _NEW, place.at(path))
    _remove(place, [path for path in record["files"] if path not in wanted], record["files"])
    _sync({os.path.dirname(place.at(path)) for path in wanted})
    for path in sorted(wanted):
        print(f"installed {place.at(path)}")
    if place.root == "/":
        _systemd(["systemd-tmpfiles", "--create", f"{place.prefix}/lib/tmpfiles.d/sockpid.conf"])
        _systemd(["systemctl", "daemon-reload"])
        if start:
            _systemd(["systemctl", "enable", unit.NAME])
            _systemd(["systemctl", "restart", unit.NAME])
    return 0


def uninstall(place: Place) -> int:
    """Removes what the record names and nobody has changed. Returns 17 if something had to stay, else 0."""
    record = _read_record(place)
    if not record["files"]:
        raise InstallError(f"nothing is installed: there is no {place.at(place.record)}")
    if place.root == "/":
        _systemd(["systemctl", "disable", "--now", unit.NAME])
        pin.clear(pin.DIRECTORY)
    left = _remove(place, list(record["files"]), record["files"])
    for path in left:
        print(f"sockpid: left {place.at(path)}: it was changed since it was installed", file=sys.stderr)
    os.unlink(place.at(place.record))
    for directory in sorted(record["directories"], key=len, reverse=True):
        with contextlib.suppress(OSError):  # somebody else has put something there
            os.rmdir(place.at(directory))
    if place.root == "/":
        _systemd(["systemctl", "daemon-reload"])
    return InstallError.exit_code if left else 0


def _stage(place: Place, wanted: Dict[str, Tuple[bytes, int]], record: Dict[str, Any]) -> None:
    """Writes every file beside its place, then the record. On failure everything is as it was."""
    made: List[str] = []
    staged: List[str] = []
    try:
        for path, (content, mode) in wanted.items():
            made += _make_directory(place, os.path.dirname(path))
            staged.append(place.at(path) + _NEW)
            _write(staged[-1], content, mode)
        document = {
            "schema": 1,
            "version": __version__,
            "files": {path: _digest(content) for path, (content, _) in wanted.items()},
            "directories": sorted({*record["directories"], *made}),
        }
        staged.append(place.at(place.record) + _NEW)
        _write(staged[-1], (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), 0o644)
        os.rename(staged[-1], place.at(place.record))
    except OSError as error:
        for path in staged:
            with contextlib.suppress(OSError):
                os.unlink(path)
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(place.at(directory))
        raise InstallError(f"write {error.filename or place.root}: {error.strerror}; nothing was changed") from None


def _demand_ours(place: Place, path: str, content: bytes, record: Dict[str, Any]) -> None:
    """Raises InstallError if a file stands at `path` that we did not write as it is."""
    found = _read(place.at(path))
    if found is None or found == content or _digest(found) == record["files"].get(path):
        return
    why = "was changed since it was installed" if path in record["files"] else "is not sockpid's"
    hint = "; changes to the unit belong into `systemctl edit sockpid`" if path.endswith(".service") else ""
    raise InstallError(f"{place.at(path)} {why}; move it away first{hint}")


def _remove(place: Place, paths: Sequence[str], digests: Dict[str, str]) -> List[str]:
    """Unlinks the files that are as recorded; returns the others."""
    left: List[str] = []
    for path in paths:
        found = _read(place.at(path))
        if found is None:
            continue
        if _digest(found) != digests[path]:
            left.append(path)
            continue
        try:
            os.unlink(place.at(path))
        except OSError as error:
            raise InstallError(f"remove {place.at(path)}: {error.strerror}") from None
        print(f"removed {place.at(path)}")
    return left


def _read_record(place: Place) -> Dict[str, Any]:
    content = _read(place.at(place.record))
    if content is None:
        return {"files": {}, "directories": []}
    try:
        record = json.loads(content)
        return {"files": dict(record["files"]), "directories": list(record["directories"])}
    except (ValueError, KeyError, TypeError):
        raise InstallError(f"{place.at(place.record)} is damaged: what was installed is not known") from None


def _make_directory(place: Place, path: str) -> List[str]:
    """Makes a directory and its parents; returns those that were not there, the outermost first."""
    missing: List[str] = []
    while path not in ("", "/") and not os.path.isdir(place.at(path)):
        missing.insert(0, path)
        path = os.path.dirname(path)
    for directory in missing:
        os.mkdir(place.at(directory), 0o755)
        os.chmod(place.at(directory), 0o755)  # whatever the umask
    return missing


def _write(path: str, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def _read(path: str) -> Any:
    """What a file holds, None if there is none. Raises InstallError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"read {path}: {error.strerror}") from None


def _sync(directories: Any) -> None:
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(fd)
        os.close(fd)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _systemd_version() -> int:
    """Of the systemd that runs here; 0 if there is none."""
    if os.path.isdir("/run/systemd/system"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(run(["systemctl", "--version"])[1].split()[1])
    return 0


def _systemd(command: List[str]) -> None:
    """Tells systemd, if it runs here (sd_booted(3))."""
    if not os.path.isdir("/run/systemd/system"):
        return
    try:
        status, said = run(command)
    except OSError as error:
        status, said = 1, str(error)
    if status:
        print(f"sockpid: {' '.join(command)}: {said.strip()}", file=sys.stderr)
