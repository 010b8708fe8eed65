"""Bundles made to deceive: in the form of the archive, in what would be printed, and while they are read."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from sockpid.bundle import bundle
from sockpid.errors import BundleError
from sockpid.sha256 import sha256
from sockpid.table import table
from tests import bundles

ROOT = bundles.ROOT
ABOUT = {"producer": "sockpid-gen 0.1.0", "version": "0.1.0", "kernels": 1, "packages": {}}
FILES = {"__main__.py": b"print('mine')\n", "a/b.py": b"x = 1\n" * 100}
FORGED = "x\nok forged.pyz: 1 members\x1b[2K\x9b\u202e\u2066[green]"
"""A line of its own, what a terminal obeys, what turns text around, and what rich takes for a colour."""


def crafted(members: list[tuple[str, bytes]], manifest: dict[str, Any] | bytes | None = None) -> bytes:
    """A whole new bundle in canonical form, with any names and any manifest. None: one that is right."""
    if manifest is None:
        manifest = {**ABOUT, "schema": bundle.SCHEMA, "members": {n: sha256(c).hexdigest() for n, c in members}}
    if isinstance(manifest, dict):
        manifest = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    body, entries = bytearray(bundle.SHEBANG), b""
    everything = [(bundle.MANIFEST, manifest), *members]
    for name, content in everything:
        member = bundle.Member(name, content, 0, content, len(body))
        body += member.header() + content
        entries += member.entry()
    return bytes(body) + entries + bundle._end(len(everything), len(entries), len(body))


def with_manifest(**changes: Any) -> bytes:
    members = sorted(FILES.items())
    digests = {name: sha256(content).hexdigest() for name, content in members}
    manifest = {**ABOUT, "schema": bundle.SCHEMA, "members": digests, **changes}
    return crafted(members, {key: value for key, value in manifest.items() if value is not None})


def verify(path: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sockpid_gen", "verify-bundle", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def demand_nothing_forged(done: subprocess.CompletedProcess[str]) -> None:
    for said in (done.stdout, done.stderr):
        lines = said.splitlines()
        assert all(line.isprintable() for line in lines), said
        assert not [line for line in lines if line.startswith("ok forged")], said


def test_what_was_crafted_is_right_but_for_what_is_wrong() -> None:
    """Otherwise whatever comes below is refused for another reason."""
    manifest, files = bundle.unpack(crafted(sorted(FILES.items())), "x.pyz")
    assert (files, manifest["kernels"]) == (FILES, 1)
    assert bundle.unpack(with_manifest(), "x.pyz")[1] == FILES
    assert bundle.pack(FILES, ABOUT) != crafted(sorted(FILES.items())), "which is not compressed"


@pytest.mark.parametrize(
    "name",
    ["../x.py", "a/../../x.py", "/etc/x", "a//x", "a/", "", ".", "a/./x", ".hidden", "a/.hidden", "a\0.py", "a\nb",
     "a\\b", "C:x", "a\x1b[2Jb", "a b", "a\x7f", "$(x)", "[green]x"],
)  # fmt: skip
def test_names_that_no_member_has(name: str) -> None:
    made = crafted(sorted({**FILES, name: b""}.items()))
    with pytest.raises(BundleError) as refused:
        bundle.unpack(made, "x.pyz")
    assert str(refused.value).isprintable()
    # And as one that the manifest alone has.
    with pytest.raises(BundleError) as refused:
        bundle.unpack(with_manifest(members={name: "0" * 64}), "x.pyz")
    assert str(refused.value).isprintable()
    # And as one that the archive alone has.
    right = json.dumps({**ABOUT, "schema": bundle.SCHEMA, "members": {}}, indent=1, sort_keys=True) + "\n"
    with pytest.raises(BundleError, match="is no name that a member has") as refused:
        bundle.unpack(crafted([(name, b"")], right.encode()), "x.pyz")
    assert str(refused.value).isprintable()


def test_names_that_differ_by_case_alone() -> None:
    for other in ("A/b.py", "__MAIN__.py", bundle.MANIFEST.lower()):
        with pytest.raises(BundleError, match="in capitals and in small letters"):
            bundle.unpack(crafted(sorted({**FILES, other: b""}.items())), "x.pyz")


def ends(data: bytes) -> tuple[int, int]:
    """Where the directory starts, and where it ends."""
    at = data.rfind(b"PK\5\6")
    return struct.unpack_from("<I", data, at + 16)[0], at


def two_directories(data: bytes) -> bytes:
    """A second directory and end, for readers that look for the last, or the first."""
    start, at = ends(data)
    directory = data[start:at]
    return data + directory + bundle._end(len(FILES) + 1, len(directory), len(data))


def comment(data: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", 5) + b"hello"


def hidden_end(data: bytes) -> bytes:
    """An end in the comment of another end."""
    end = data[ends(data)[1] :]
    return data[:-2] + struct.pack("<H", len(end)) + end


def link(data: bytes) -> bytes:
    start, _ = ends(data)
    at = start + 38  # external attributes of the first entry
    return data[:at] + struct.pack("<I", 0o120777 << 16) + data[at + 4 :]


def zip64(data: bytes) -> bytes:
    """As large archives have it: the end says to look in another one."""
    start, at = ends(data)
    count = len(FILES) + 1
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, at - start, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:at] + end64 + locator + end


def local_name(data: bytes) -> bytes:
    """The header at the member is another's than the directory says."""
    return data.replace(b"a/b.py", b"a/c.py", 1)


def local_size(data: bytes) -> bytes:
    at = data.index(b"a/b.py") - 12
    return data[:at] + b"\0" * 4 + data[at + 4 :]


def encrypted(data: bytes) -> bytes:
    start, _ = ends(data)
    return data[: start + 8] + b"\1\0" + data[start + 10 :]


def other_archive(data: bytes) -> bytes:
    """Another archive within the file, with its own directory, before the end of ours."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("__main__.py", "print('mine')")
    start, at = ends(data)
    moved = bundle._end(len(FILES) + 1, at - start, start + len(inner.getvalue()))
    return data[:start] + inner.getvalue() + data[start:at] + moved


@pytest.mark.parametrize(
    "trick",
    [two_directories, comment, hidden_end, link, zip64, local_name, local_size, encrypted, other_archive,
     lambda data: b"#!/bin/sh\n" + data, lambda data: data + b"x", lambda data: b"\x7fELF" + data,
     lambda data: data.replace(b"# coding: the", b"# coding: utf-8 "[:13])],
)  # fmt: skip
def test_tricks_of_archives_are_refused(trick: Any) -> None:
    with pytest.raises(BundleError, match=r"^x\.pyz: .*(altered|damaged|something was put|belong to no member)"):
        bundle.unpack(trick(crafted([(name, FILES[name]) for name in sorted(FILES)])), "x.pyz")


def test_what_would_fill_the_memory_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(b"\0" * 10_000_000) + deflate.flush()
    assert len(packed) < 10_000

    def bomb(size: int, *names: str) -> bytes:
        body, entries = bytearray(bundle.SHEBANG), b""
        for name in names:
            fixed = (0, 8, 0, 0x21, 0, len(packed), size, len(name), 0)
            entries += struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", 0x314, 20, *fixed, 0, 0, 0, 0o100644 << 16, len(body))
            entries += name.encode()
            body += struct.pack("<4s5HIIIHH", b"PK\3\4", 20, *fixed) + name.encode() + packed
        return bytes(body) + entries + bundle._end(len(names), len(entries), len(body))

    monkeypatch.setattr(zlib, "decompressobj", None)  # it is not even begun
    with pytest.raises(BundleError, match=r"MANIFEST\.json would have 4294967295 bytes: no member has"):
        bundle.unpack(bomb(0xFFFFFFFF, bundle.MANIFEST), "x.pyz")
    monkeypatch.undo()
    with pytest.raises(BundleError, match="cannot be unpacked"):  # it says less than it has
        bundle.unpack(bomb(100, bundle.MANIFEST), "x.pyz")
    monkeypatch.setattr(bundle, "LIMIT", 1000)
    with pytest.raises(BundleError, match="its members have more than 1000 bytes"):
        bundle.unpack(bundle.pack({"a": b"\0" * 3000}, ABOUT), "x.pyz")
    with pytest.raises(BundleError, match="more than 1000 bytes: no bundle is"):
        bundle.unpack(b"x" * 1001, "x.pyz")


MANIFESTS: list[dict[str, Any]] = [
    {"producer": FORGED},
    {"producer": "x\r"},
    {"version": "\x1b]0;x\x07"},
    {"producer": 1},
    {"producer": None},
    {"kernels": None},
    {"kernels": "many\nok"},
    {"kernels": True},
    {"packages": {FORGED: {"version": "1", "licence": "MIT", "python": None}}},
    {"packages": {"p": {"version": FORGED, "licence": "MIT", "python": None}}},
    {"packages": {"p": {"version": "1"}}},
    {"packages": {"p": 1}},
    {"packages": []},
    {"signer": "alice"},
    {"sha256": "0" * 64},
    {FORGED: 1},
    {"schema": FORGED},
    {"schema": ["1.0"]},
    {"members": {FORGED: "0" * 64}},
    {"members": {"a/b.py": 1}},
    {"members": []},
]


@pytest.mark.parametrize("changes", MANIFESTS)
def test_nothing_of_a_manifest_is_printed_that_could_be_taken_for_ours(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"^x\.pyz: MANIFEST\.json ") as refused:
        bundle.unpack(with_manifest(**changes), "x.pyz")
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii()


def test_nothing_is_printed_of_what_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pyz"
    for changes, *arguments in ((MANIFESTS[0],), (MANIFESTS[0], "--json"), ({"schema": FORGED},)):
        path.write_bytes(with_manifest(**changes))
        done = verify(path, *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (BundleError.exit_code, "", 1), done
        assert "MANIFEST.json" in done.stderr
        demand_nothing_forged(done)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"schema": "1.0"}', b"", b"\xff", b'"members"', b"null"])
def test_a_manifest_that_is_none(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"MANIFEST\.json is missing or malformed"):
        bundle.unpack(crafted([], text), "x.pyz")


def test_keys_that_are_there_twice(tmp_path: Path) -> None:
    """Readers take one or the other value."""
    made = with_manifest()
    path = tmp_path / "x.pyz"
    path.write_bytes(made)
    text = zipfile.ZipFile(path).read(bundle.MANIFEST)
    doubled = text.replace(b'"version": ', b'"version": "9",\n "version": ', 1)
    with pytest.raises(BundleError, match="not in the form in which sockpid-gen writes it"):
        bundle.unpack(crafted(sorted(FILES.items()), doubled), "x.pyz")


@pytest.mark.parametrize("name", [f"{FORGED.replace('/', '')}.pyz", "[green]ok[bold].pyz", "a\nok forged.pyz"])
def test_a_name_of_a_file_forges_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(crafted(sorted(FILES.items())))
    done = verify(path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done
    assert done.stdout.startswith("ok ")
    demand_nothing_forged(done)
    assert json.loads(verify(path, "--json").stdout)["file"] == str(path)
    path.write_bytes(b"")
    done = verify(path)
    assert (done.returncode, len(done.stderr.splitlines())) == (BundleError.exit_code, 1), done
    demand_nothing_forged(done)


# What is replaced while it is read.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "sockpid.pyz"
    release = table.parse_shard((ROOT / "offsets/x86_64/6.1.json").read_bytes(), "").entries[-1].release
    return bundles.make(path, "--arch", "x86_64", "--release", release, "--without-pyroute2")


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one signer, whose key lies beside it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed here")
    directory = tmp_path_factory.mktemp("keys")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key")], check=True)
    (directory / "allowed").write_text(f"alice@example.org {(directory / 'key.pub').read_text()}")
    return directory / "allowed"


def sign(path: Path, keyring: Path) -> None:
    key = str(keyring.with_name("key"))
    subprocess.run(["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "sockpid", str(path)], check=True)


def test_a_bundle_is_read_once_to_be_verified(small: Path, keyring: Path, tmp_path: Path) -> None:
    """From a pipe, which gives its bytes once: who reads again waits for ever."""
    sign(shutil.copyfile(small, tmp_path / "signed.pyz"), keyring)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shutil.copyfile(tmp_path / "signed.pyz.sig", tmp_path / "pipe.sig")
    for content, status in ((small.read_bytes(), 0), (crafted(sorted(FILES.items())), BundleError.exit_code)):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        done = verify(pipe, "--keyring", str(keyring), "--json")
        writer.join()
        assert done.returncode == status, done
        if status == 0:
            found = json.loads(done.stdout)
            assert (found["signer"], found["sha256"]) == ("alice@example.org", sha256(content).hexdigest())


SWAP = """
import builtins, os, runpy, sys
path, other = sys.argv[1:3]
sys.argv[:3] = [path]
before = builtins.open
class Swapped:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def read(self, *size):
        content = self.file.read(*size)
        if os.path.exists(other):
            os.replace(other, path)
        return content
def replaced(file, *arguments, **named):
    opened = before(file, *arguments, **named)
    return Swapped(opened) if file == path else opened
builtins.open = replaced
runpy.run_path(path, run_name="__main__")
"""
"""Replaces the file at the moment at which a bundle has read itself."""


def start_and_swap(path: Path, other: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    (stranger := path.with_name("other")).write_bytes(other)
    command = [sys.executable, "-I", "-S", "-c", SWAP, str(path), str(stranger), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert path.read_bytes() == other, "it was replaced"
    return done


@pytest.mark.parametrize(
    "other", [b"", b"\0" * 600_000, crafted(sorted(FILES.items()))], ids=["empty", "zeros", "another"]
)
def test_what_was_looked_at_is_what_runs_and_what_is_installed(small: Path, tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "sockpid.pyz"
    shutil.copyfile(small, path)
    done = start_and_swap(path, other, "run", "--help")
    assert (done.returncode, "INTERRUPTED" in done.stdout, "mine" in done.stdout) == (0, True, False), done
    shutil.copyfile(small, path)
    (tmp_path / "root").mkdir()
    done = start_and_swap(path, other, "install", "--root", str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "root/usr/local/lib/sockpid/sockpid.pyz").read_bytes() == small.read_bytes()


def test_the_signature_is_of_what_runs(small: Path, keyring: Path, tmp_path: Path) -> None:
    signed = tmp_path / "sockpid.pyz"
    sign(shutil.copyfile(small, signed), keyring)
    demand = [f"--require-signature={keyring}", "lookup", "--all", "--pin", "/nowhere"]
    done = start_and_swap(signed, b"", *demand)
    assert "/nowhere" in done.stderr
    assert "signature" not in done.stderr
    # An altered one that is replaced by the signed one as soon as it was read.
    manifest, files = bundle.unpack(small.read_bytes(), "")
    about = {key: manifest[key] for key in ABOUT}
    signed.write_bytes(bundle.pack({**files, "sockpid/extra.py": b""}, about))
    done = start_and_swap(signed, small.read_bytes(), *demand)
    assert (done.returncode, "is not a signature of this file" in done.stderr) == (BundleError.exit_code, True), done


@pytest.mark.parametrize("version", bundles.PYTHONS)
def test_a_bundle_without_its_end_says_so(small: Path, tmp_path: Path, version: str) -> None:
    """To Python it is no archive then, and nothing of it runs: the status is Python's."""
    python = bundles.interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    data, path = small.read_bytes(), tmp_path / "cut.pyz"
    for size in (len(bundle.SHEBANG), 100_000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        done = subprocess.run([python, "-I", "-S", str(path), "run"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert "SyntaxError: encoding problem: the-end-of-this-bundle-is-missing" in done.stderr
    assert verify(path).returncode == BundleError.exit_code
