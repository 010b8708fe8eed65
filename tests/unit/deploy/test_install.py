"""install and uninstall: all or nothing, and nothing of others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sockpid.cli import parser
from sockpid.deploy import unit
from sockpid.errors import InstallError, UsageError
from sockpid.manual import commands, completion
from tests import bundles

PLACES = {
    "usr/lib/sockpid/sockpid.pyz": 0o644,
    "usr/lib/sockpid/installed.json": 0o644,
    "usr/sbin/sockpid": 0o755,
    "usr/lib/systemd/system/sockpid.service": 0o644,
    "usr/lib/tmpfiles.d/sockpid.conf": 0o644,
    "usr/share/bash-completion/completions/sockpid": 0o644,
    "usr/share/zsh/vendor-completions/_sockpid": 0o644,
    "usr/share/fish/vendor_completions.d/sockpid.fish": 0o644,
    "usr/share/man/man8/sockpid.8": 0o644,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "sockpid.pyz"
    return bundles.make(path, "--arch", "x86_64", "--without-pyroute2")


def sockpid(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-I", "-S", str(bundle), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def found(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mode & 0o777 for p in root.rglob("*") if p.is_file()}


def test_into_an_image_and_out_again(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "usr/share").mkdir(parents=True)
    done = sockpid(bundle, "install", "--root", str(tmp_path), "--prefix", "/usr")
    assert done.returncode == 0, done.stderr
    assert found(tmp_path) == PLACES
    assert all(p.stat().st_mode & 0o777 == 0o755 for p in (tmp_path / "usr").rglob("*") if p.is_dir())
    assert (tmp_path / "usr/lib/sockpid/sockpid.pyz").read_bytes() == bundle.read_bytes()
    wrapper = (tmp_path / "usr/sbin/sockpid").read_text()
    assert 'exec /usr/bin/python3 -I -S /usr/lib/sockpid/sockpid.pyz "$@"' in wrapper
    again = sockpid(bundle, "install", "--root", str(tmp_path), "--prefix", "/usr")
    assert (again.returncode, found(tmp_path)) == (0, PLACES)
    done = sockpid(bundle, "uninstall", "--root", str(tmp_path), "--prefix", "/usr")
    assert done.returncode == 0, done.stderr
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["usr", "usr/share"]
    done = sockpid(bundle, "uninstall", "--root", str(tmp_path), "--prefix", "/usr")
    assert (done.returncode, "nothing is installed" in done.stderr) == (InstallError.exit_code, True)


def test_files_of_others_are_not_touched(bundle: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "usr/local/sbin/sockpid"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    done = sockpid(bundle, "install", "--root", str(tmp_path))
    assert (done.returncode, f"{theirs} is not sockpid's" in done.stderr) == (InstallError.exit_code, True)
    assert list(found(tmp_path)) == ["usr/local/sbin/sockpid"]
    theirs.unlink()
    assert sockpid(bundle, "install", "--root", str(tmp_path)).returncode == 0
    service = tmp_path / "usr/local/lib/systemd/system/sockpid.service"
    service.write_text(service.read_text() + "# edited\n")
    done = sockpid(bundle, "install", "--root", str(tmp_path))
    assert (done.returncode, "systemctl edit sockpid" in done.stderr) == (InstallError.exit_code, True)
    done = sockpid(bundle, "uninstall", "--root", str(tmp_path))
    assert (done.returncode, f"left {service}" in done.stderr) == (InstallError.exit_code, True)
    assert list(found(tmp_path)) == [str(service.relative_to(tmp_path))]


def test_an_upgrade_replaces_what_was_installed(bundle: Path, tmp_path: Path) -> None:
    assert sockpid(bundle, "install", "--root", str(tmp_path)).returncode == 0
    newer = bundles.make(tmp_path / "newer.pyz", "--arch", "aarch64", "--without-pyroute2")
    record = tmp_path / "usr/local/lib/sockpid/installed.json"
    document = json.loads(record.read_text())
    gone = tmp_path / "usr/local/share/gone"
    gone.write_bytes(b"")
    document["files"]["/usr/local/share/gone"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    record.write_text(json.dumps(document))
    done = sockpid(newer, "install", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "usr/local/lib/sockpid/sockpid.pyz").read_bytes() == newer.read_bytes()
    assert not gone.exists()  # an older version had it, this one has not


def test_a_full_disk_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    """First with nothing installed; then an upgrade that has no room leaves what was there."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    install = f"{sys.executable} -I -S {bundle} install --root {tmp_path}"
    script = f"""
        mount -t tmpfs -o size=64k none {tmp_path} || exit 9
        {install}; echo "status $?"; find {tmp_path} -mindepth 1
        mount -o remount,size=8m {tmp_path}
        {install} >/dev/null; echo "status $?"
        echo >> {bundle}.other; cp {bundle} {tmp_path}/filler 2>/dev/null
        while cat {bundle} >> {tmp_path}/filler 2>/dev/null; do :; done
        cd {tmp_path}; sha256sum $(find usr -type f | sort) > /dev/shm/before-$$
        {install} --python /other/python3; echo "status $?"
        sha256sum $(find usr -type f | sort) | cmp - /dev/shm/before-$$ && echo same
        rm /dev/shm/before-$$
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    refused = f"status {InstallError.exit_code}"
    assert done.stdout.splitlines() == [refused, "status 0", refused, "same"], done
    assert done.stderr.count("No space left on device; nothing was changed") == 2


def test_only_a_bundle_installs_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(bundles.ROOT / "runtime"), "install", "--root", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "sockpid-gen bundle" in done.stderr) == (UsageError.exit_code, True)


def test_every_option_is_in_the_manual_which_groff_likes(bundle: Path, tmp_path: Path) -> None:
    assert sockpid(bundle, "install", "--root", str(tmp_path)).returncode == 0
    manual = tmp_path / "usr/local/share/man/man8/sockpid.8"
    text = manual.read_text().replace("\\-", "-")
    for command in commands.commands(parser.parser()):
        assert not command.name or f".SS sockpid {command.name}" in text
        for option in command.options:
            assert all(f"\\fB{flag}\\fR" in text for flag in option.flags)
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed here: the page was not formatted")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rF0", str(manual)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "--require-signature" in re.sub(r"\x1b\[[0-9]*m", "", done.stdout).replace("\N{HYPHEN}", "-")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sockpid ins", {"install"}),
        ("sockpid run --sh", {"--sharers"}),
        ("sockpid run --attach kp", {"kprobe-pmu", "kprobe-tracefs"}),
        ("sockpid --json lookup --a", {"--all"}),
    ],
)
def test_bash_completes(line: str, expected: set[str]) -> None:
    scripts = completion.scripts("sockpid", commands.commands(parser.parser()))
    words = line.split(" ")
    script = scripts["bash"] + (
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _sockpid; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_can_parse_their_completion(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    path = tmp_path / "completion"
    path.write_text(completion.scripts("sockpid", commands.commands(parser.parser()))[shell])
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_the_unit_sound_and_hardened(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    path = tmp_path / unit.NAME
    path.write_text(unit.unit(sys.executable, sys.executable).replace("Documentation=man:sockpid(8)\n", ""))
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    ours = [line for line in done.stderr.splitlines() if "sockpid" in line]
    assert (done.returncode, ours) == (0, [])
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_old_kernels_get_the_capability_that_they_know() -> None:
    assert "CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_NET_ADMIN" in unit.unit("p", "b")
    assert "CapabilityBoundingSet=CAP_SYS_ADMIN CAP_NET_ADMIN" in unit.unit("p", "b", knows_cap_bpf=False)


def test_pypy_may_write_what_it_executes() -> None:
    assert "\nMemoryDenyWriteExecute=yes\n" in unit.unit("/usr/bin/python3", "b")
    assert "MemoryDenyWriteExecute" not in unit.unit("/usr/bin/pypy3", "b")


def test_every_option_of_the_generator_is_in_its_manual(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "sockpid_gen.cli.man", str(tmp_path)], check=True)
    text = (tmp_path / "sockpid-gen.1").read_text().replace("\\-", "-")
    for name in ("add", "bundle", "verify-bundle", "check"):
        assert f".SS sockpid-gen {name}\n" in text
        done = subprocess.run(
            [sys.executable, "-m", "sockpid_gen", name, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )
        section = text.partition(f".SS sockpid-gen {name}\n")[2].partition(".SS ")[0]
        flags = set(re.findall(r"^. +(?:\\*  )?(--[a-z0-9-]+)", done.stdout, re.MULTILINE))
        assert flags
        assert all(f"\\fB{flag}\\fR" in section for flag in flags)


def test_a_debian_package_depends_on_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed here")
    made = []
    for umask in ("022", "077"):
        command = f"umask {umask}; {sys.executable} {bundles.ROOT}/packaging/deb.py {bundle} {tmp_path}/{umask}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        made.append(Path(done.stdout.strip()).read_bytes())
    assert made[0] == made[1]
    listing = subprocess.run(["dpkg-deb", "-c", done.stdout.strip()], capture_output=True, text=True, check=True).stdout
    for path in ("usr/lib/sockpid/sockpid.pyz", "usr/sbin/sockpid", "lib/systemd/system/sockpid.service"):
        assert f"./{path}\n" in listing
