"""Makes a Debian package of a bundle: what `sockpid install` puts in place, and what Debian's policy wants besides.

    python packaging/deb.py BUNDLE DIRECTORY

The same bundle makes the same package, byte for byte.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAINTAINER = "sockpid maintainers <sockpid@localhost>"
EPOCH = "315532800"  # 1 January 1980, as in the bundle: nothing depends on when it is made

CONTROL = """\
Package: sockpid
Version: {version}
Architecture: all
Maintainer: {maintainer}
Installed-Size: {size}
Depends: python3 (>= 3.7)
Recommends: openssh-client
Section: net
Priority: optional
Description: which process owns a TCP socket when the kernel retransmits for it
 A retransmit happens in softirq context, where the current process is
 whatever the timer interrupted. sockpid remembers who used a socket while that
 process itself was calling into TCP, and looks the owner up when the kernel
 retransmits.
 .
 It needs no compiler, no kernel headers, no BTF and no network on the host.
"""

SCRIPTS = {
    "postinst": """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create sockpid.conf || true
    systemctl daemon-reload || true
    if [ "$1" = configure ] && [ -n "$2" ]; then
        systemctl try-restart sockpid.service || true
    fi
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now sockpid.service || true
fi
""",
    "postrm": """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
# What the service kept for its next start.
if [ "$1" = remove ]; then
    rm -rf /sys/fs/bpf/sockpid || true
fi
if [ "$1" = purge ]; then
    rm -rf /etc/sockpid /etc/default/sockpid /var/lib/sockpid /var/log/sockpid
fi
""",
}

OVERRIDES = """\
# Made outside of Debian, by whoever runs `make dist`.
sockpid: bogus-mail-host
sockpid: bogus-mail-host-in-debian-changelog
# Only where systemd runs; the package is made without debhelper.
sockpid: maintainer-script-calls-systemctl
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sockpid

Files: *
Copyright: the sockpid authors
License: BSD-2-Clause

Files: usr/lib/sockpid/sockpid.pyz/pyroute2/*
Copyright: Peter Saveliev and others
License: GPL-2+ or Apache-2.0
 On Debian systems these licences are in /usr/share/common-licenses/GPL-2 and
 /usr/share/common-licenses/Apache-2.0.

License: BSD-2-Clause
{licence}
"""


def build(bundle: Path, directory: Path) -> Path:
    """The package, in a directory."""
    run = [sys.executable, "-I", "-S", str(bundle)]
    version = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        root.mkdir()
        root.chmod(0o755)
        where = ["--root", str(root), "--prefix", "/usr", "--python", "/usr/bin/python3"]
        subprocess.run([*run, "install", *where], check=True, capture_output=True)
        (root / "usr/lib/sockpid/installed.json").unlink()  # dpkg keeps the record
        (root / "usr/lib/systemd").rename(root / "systemd")
        _directory(root / "lib")
        (root / "systemd").rename(root / "lib/systemd")
        documents = root / "usr/share/doc/sockpid"
        licence = "".join(f" {line}\n" if line else " .\n" for line in (ROOT / "LICENSE").read_text().splitlines())
        change = f"sockpid ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n"
        _write(documents / "copyright", COPYRIGHT.format(licence=licence.rstrip()).encode())
        _write(
            documents / "changelog.gz", _packed(f"{change} -- {MAINTAINER}  Tue, 01 Jan 1980 00:00:00 +0000\n".encode())
        )
        _write(root / "usr/share/lintian/overrides/sockpid", OVERRIDES.encode())
        manual = root / "usr/share/man/man8/sockpid.8"
        _write(manual.with_name("sockpid.8.gz"), _packed(manual.read_bytes()))
        manual.unlink()
        size = -(-sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024)
        control = CONTROL.format(version=version, maintainer=MAINTAINER, size=size)
        _write(root / "DEBIAN/control", control.encode())
        for name, script in SCRIPTS.items():
            _write(root / "DEBIAN" / name, script.encode(), 0o755)
        target = directory / f"sockpid_{version}_all.deb"
        directory.mkdir(parents=True, exist_ok=True)
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(target)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    return target


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _directory(path: Path) -> None:
    """Makes a directory and its parents, whatever the umask."""
    for made in (*reversed(path.parents), path):
        if not made.exists():
            made.mkdir()
            made.chmod(0o755)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    _directory(path.parent)
    path.write_bytes(content)
    path.chmod(mode)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])))
