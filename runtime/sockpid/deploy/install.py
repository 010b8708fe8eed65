"""`sockpid install` and `uninstall`: the bundle and what belongs to it, and systemd told of it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Dict, List, NamedTuple, Sequence, Tuple

from sockpid import __version__, data
from sockpid.errors import InstallError, UsageError
from sockpid.host import kernel
from sockpid.host.process import run
from sockpid.manual.commands import Command
from sockpid.manual.completion import scripts
from sockpid.manual.manual import page
from sockpid.offsets import kept
from sockpid.pins import pin
from sockpid.uapi import CAP_BPF

from . import unit
from .file_set import Placed

SUMMARY = "says which process owns a TCP socket when the kernel retransmits for it"
FILES = """
/etc/sockpid/config.toml or config.json: options of `sockpid run --config` and of the service; keys are the options'
names. SIGHUP reads it again.

/etc/default/sockpid: SOCKPID_OPTIONS, more options of the service; they win.

/etc/sockpid/offsets.d/*.json: further offset tables.
"""


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

    @property
    def unit(self) -> str:
        return f"{self.prefix}/lib/systemd/system/{unit.NAME}"


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
        place.unit: (service, 0o644),
        f"{prefix}/lib/tmpfiles.d/sockpid.conf": (unit.TMPFILES, 0o644),
        f"{prefix}/share/bash-completion/completions/sockpid": (shells["bash"], 0o644),
        f"{prefix}/share/zsh/vendor-completions/_sockpid": (shells["zsh"], 0o644),
        f"{prefix}/share/fish/vendor_completions.d/sockpid.fish": (shells["fish"], 0o644),
        f"{prefix}/share/man/man8/sockpid.8": (manual, 0o644),
    }
    return {place.bundle: (bundle, 0o644), **{path: (text.encode(), mode) for path, (text, mode) in texts.items()}}


def install(place: Place, commands: Sequence[Command], start: bool) -> int:
    """Puts everything in place, and tells systemd if it runs. Raises UsageError, InstallError with nothing changed."""
    content = data.content()
    if content is None:
        raise UsageError("install works from a bundle: python3 sockpid.pyz install (`sockpid-gen bundle` makes one)")
    here = place.root == "/"
    knows_cap_bpf = kernel.knows_capability(CAP_BPF) or not here
    wanted = files(place, content, commands, knows_cap_bpf, _systemd_version() if here else 0)
    placed = Placed(place.root, place.record)
    placed.put(wanted, {place.unit: "; changes to the unit belong into `systemctl edit sockpid`"})
    for path in sorted(wanted):
        print(f"installed {placed.at(path)}")
    if here:
        _systemd(["systemd-tmpfiles", "--create", f"{place.prefix}/lib/tmpfiles.d/sockpid.conf"])
        _systemd(["systemctl", "daemon-reload"])
        if start:
            _systemd(["systemctl", "enable", unit.NAME])
            _systemd(["systemctl", "restart", unit.NAME])
    return 0


def uninstall(place: Place) -> int:
    """Removes what the record names and nobody has changed. Returns 17 if something had to stay, else 0."""
    placed = Placed(place.root, place.record)
    if not placed.files:
        raise InstallError(f"nothing is installed: there is no {placed.at(place.record)}")
    if place.root == "/":
        _systemd(["systemctl", "disable", "--now", unit.NAME])
        pin.clear(pin.DIRECTORY)
        kept.forget()
    left = placed.take_away()
    for path in left:
        print(f"sockpid: left {placed.at(path)}: it was changed since it was installed", file=sys.stderr)
    if place.root == "/":
        _systemd(["systemctl", "daemon-reload"])
    return InstallError.exit_code if left else 0


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
