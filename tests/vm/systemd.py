"""Guests whose process 1 is Debian's systemd: for what `sockpid install` and the Debian package do with it.

To the lab's usual guest (busybox, Python) come systemd and dpkg with their libraries, out of their packages. dpkg's
list of what is installed names Python alone. What one guest leaves can be given to the next: that is a reboot.
"""

from __future__ import annotations

import functools
import io
import shlex
import tarfile
from collections.abc import Mapping, Sequence

from . import initramfs, packages, qemu, unpack
from .kernels import Guest
from .newc import DIRECTORY, FILE, PROGRAM, SYMLINK, Entry, archive

SUITE = "bookworm"  # that of the guests' Python, whose C library is in both
MEMORY = 768

_NOT_WANTED = r"(?!usr/share/(?!dbus-1|dpkg)|usr/lib/(udev|kernel|modprobe|pcrlock)|.*/(locale|gconv)/).*"
_LIBRARIES = (
    "libacl1", "libapparmor1", "libaudit1", "libblkid1", "libbz2-1.0", "libc6", "libcap-ng0", "libcap2",
    "libcrypt1", "libcryptsetup12", "libfdisk1", "libgcrypt20", "libgpg-error0", "libip4tc2", "libkmod2", "liblz4-1",
    "liblzma5", "libmd0", "libmount1", "libpam0g", "libpcre2-8-0", "libseccomp2", "libselinux1", "libssl3",
    "libsystemd-shared", "libsystemd0", "libzstd1", "zlib1g",
)  # fmt: skip
_PACKAGES = {
    **dict.fromkeys(_LIBRARIES, r"(usr/)?lib/.*\.so[.\d]*"),
    "systemd": _NOT_WANTED,
    "dpkg": _NOT_WANTED,
    "tar": r"bin/tar",  # busybox's lacks options that dpkg uses
    "libc-bin": r"sbin/ldconfig",
}

# systemd gives services file systems of their own, which the kernel refuses where the root is the initramfs itself.
_INIT = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin
/bin/busybox --install -s /bin
mkdir -p /root /mnt
mount --bind / /mnt
cd /mnt
mount --move . /
exec chroot . /usr/lib/systemd/systemd
"""
_LAB = """\
#!/bin/sh
export HOME=/root PATH=/usr/local/sbin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8 SYSTEMD_PAGER=
exec 3>/dev/console
echo "--- command" >&3
ip link set lo up
mkdir /lab/result
cd /lab/result
for word in $(cat /proc/cmdline); do
    case $word in sockpid.timeout=*) timeout=${word#*=} ;; esac
done
timeout -s KILL "$timeout" sh /lab/command >stdout 2>stderr
status=$?
[ $status != 137 ] || echo "$timeout" >timeout
echo $status >status
dmesg -n 1
echo "--- result" >&3
tar -cf - . | gzip -1 | base64 >&3
echo "--- end" >&3
"""
_UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/lab/run
ExecStopPost=/usr/bin/poweroff -f
[Install]
WantedBy=graphical.target
"""
_MASKED = (
    "getty.target", "systemd-logind.service", "systemd-binfmt.service", "systemd-hwdb-update.service",
    "systemd-pstore.service", "systemd-random-seed.service", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "systemd-firstboot.service", "systemd-ask-password-wall.path",
    "dev-hugepages.mount", "dev-mqueue.mount", "proc-sys-fs-binfmt_misc.automount", "sys-fs-fuse-connections.mount",
    "systemd-remount-fs.service", "systemd-journal-catalog-update.service", "systemd-update-done.service",
    "systemd-journal-flush.service", "getty-static.service", "timers.target",
)  # fmt: skip
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\nadm:x:4:\ntty:x:5:\nutmp:x:43:\nsystemd-journal:x:101:\n",
    "etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "etc/machine-id": "b08dfa6083e7567a1921a715000001fb\n",
    "etc/fstab": "",
    "etc/systemd/system/lab.service": _UNIT,
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStartSec=600\n",  # emulated hosts are slow
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nRateLimitBurst=0\n",
    # dpkg knows of nothing else: of Python that it is there, as the lab has put it there.
    "var/lib/dpkg/status": "Package: python3\nStatus: install ok installed\nMaintainer: the lab <lab@localhost>\n"
    "Version: 3.11.2-1\nArchitecture: amd64\nDescription: as the guests have it\n",
    "var/lib/dpkg/available": "",
    "var/lib/dpkg/arch": "amd64\n",
}


@functools.cache
def root() -> bytes:
    """The archive of what a systemd guest has besides the usual guest's files."""
    entries: dict[str, Entry] = {}
    for package, pattern in _PACKAGES.items():
        entries.update(unpack.members(packages.fetch(package, SUITE, "amd64"), pattern))
    entries["sbin"] = Entry(SYMLINK, b"usr/sbin")
    entries["init"] = Entry(PROGRAM, _INIT.encode())
    entries["lab/run"] = Entry(PROGRAM, _LAB.encode())
    for name in _MASKED:
        entries[f"etc/systemd/system/{name}"] = Entry(SYMLINK, b"/dev/null")
    entries["etc/systemd/system/default.target"] = Entry(SYMLINK, b"/usr/lib/systemd/system/graphical.target")
    entries["etc/systemd/system/graphical.target.wants/lab.service"] = Entry(SYMLINK, b"../lab.service")
    entries.update({path: Entry(FILE, text.encode()) for path, text in _TEXTS.items()})
    for directory in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "usr/local/sbin", "usr/sbin", "tmp"):
        entries[directory] = Entry(DIRECTORY)
    return archive(entries)


def run(guest: Guest, script: str, *, timeout: float, files: Mapping[str, bytes], left: bytes = b"") -> qemu.Result:
    """Boots a guest of the kernel with systemd, runs a shell script once it is up, and returns what that did.

    files: more files by path. left: what another guest left (see keep()).
    """
    given = {path: Entry(FILE, content) for path, content in files.items()}
    given["lab/command"] = Entry(FILE, script.encode())
    base = [initramfs.base("amd64").read_bytes(), initramfs.checkout("amd64", "no tables")]
    archives = [*base, root(), _of_tar(left), archive(given)]
    return qemu.boot(
        guest.kernel.vmlinuz(),
        b"".join(archives),
        "amd64",
        timeout=timeout,
        memory=MEMORY,
        append="systemd.show_status=0 systemd.log_target=journal systemd.unified_cgroup_hierarchy=1",
    )


def keep(paths: Sequence[str]) -> str:
    """A shell command that leaves these files for the next guest, as left.tar among the results."""
    # By its path: busybox's shell prefers its own.
    return f"/usr/bin/tar -cf left.tar -C / {shlex.join(p.lstrip('/') for p in paths)} || exit\n"


def _of_tar(content: bytes) -> bytes:
    if not content:
        return b""
    entries: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        for member in members:
            if member.isdir():
                entries[member.name] = Entry(DIRECTORY)
            elif member.issym():
                entries[member.name] = Entry(SYMLINK, member.linkname.encode())
            elif file := members.extractfile(member):
                entries[member.name] = Entry(PROGRAM if member.mode & 0o100 else FILE, file.read())
    return archive(entries)
