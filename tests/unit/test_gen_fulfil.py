"""`sockpid-gen fulfil`: the right package is taken, another build is refused or proven, and what was tried is said."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
from typer.testing import CliRunner, Result

from sockpid import request, table
from sockpid.errors import RequestError, SourceError
from sockpid.layout import Field, Layout, Struct
from sockpid_gen import fulfil
from sockpid_gen.cli import load
from sockpid_gen.entry import KernelEntry
from sockpid_gen.fulfil import Places
from tests import kernel_files as make

ASKED = request.Request(
    make.BUILD_ID, "6.1.0-1-test", "x86_64", request.without_builder(make.BANNER), request.digest(make.BANNER)
)
DEBIAN = "Linux version 6.1.0-{}-cloud-amd64 (debian-kernel@lists.debian.org) (gcc) #1 SMP Debian 6.1.{}-1 (2026-01-01)"


def run(tmp_path: Path, asked: request.Request, *arguments: str) -> Result:
    file = tmp_path / "host.req"
    file.write_text(asked.text)
    out = ["-o", str(tmp_path / "out.json"), "--offsets", str(tmp_path / "offsets"), "--no-apt"]
    return CliRunner().invoke(load(), ["fulfil", str(file), *out, *arguments])


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory of packages: the wanted kernel's, and another architecture's of the same name."""
    directory = tmp_path / "packages/pool"
    directory.mkdir(parents=True)
    for name, elf in (("amd64", make.elf()), ("s390x", make.elf(byte_order="big", machine=make.S390X))):
        package = make.deb({"./boot/vmlinux-6.1.0-1-test": elf})
        (directory / f"linux-image-6.1.0-1-test_6.1.1_{name}.deb").write_bytes(package)
    (directory / "linux-image-6.1.0-10-test_6.1.1_amd64.deb").write_bytes(b"not read")
    return tmp_path / "packages"


def test_the_package_is_found_by_its_name_and_proven_by_its_build_id(tmp_path: Path, packages: Path) -> None:
    result = run(tmp_path, ASKED, "--from", str(packages), "--json")
    assert result.exit_code == 0, result
    report = json.loads(result.output)
    assert (report["source"], report["note"]) == ("linux-image-6.1.0-1-test_6.1.1_amd64.deb", None)
    shard = table.parse_shard((tmp_path / "out.json").read_bytes(), "out.json")
    entry = shard.find(make.BUILD_ID, "6.1.0-1-test", make.BANNER)
    assert entry is not None
    assert entry.provenance["sha256"]
    row = shard.layout(entry)["struct sock"]
    assert isinstance(row, Struct)
    assert row.fields["sk_protocol"] == Field(0, 16)


def test_another_build_of_the_same_release_is_refused_by_name(tmp_path: Path, packages: Path) -> None:
    result = run(tmp_path, ASKED._replace(build_id="ff" * 20), "--from", str(packages))
    assert isinstance(result.exception, SourceError)
    assert result.exception.exit_code == 14
    assert make.BUILD_ID in str(result.exception)
    assert "not proven equal" in str(result.exception)
    assert not (tmp_path / "out.json").exists()


def test_without_build_id_the_whole_banner_decides(tmp_path: Path, packages: Path) -> None:
    nameless = ASKED._replace(build_id=None)
    assert run(tmp_path, nameless, "--from", str(packages)).exit_code == 0
    rebuilt = nameless._replace(banner_sha256=request.digest(make.BANNER.replace("#1", "#2")))
    assert isinstance(run(tmp_path, rebuilt, "--from", str(packages)).exception, SourceError)


def test_a_damaged_request_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    result = run(tmp_path, ASKED)
    assert "nothing: give --from PATH" in str(result.exception)
    (tmp_path / "bad.req").write_text(ASKED.text.replace("6.1.0-1-test", "6.1.0-7-test"))
    result = CliRunner().invoke(load(), ["fulfil", str(tmp_path / "bad.req"), "--no-apt"])
    assert isinstance(result.exception, RequestError)
    assert result.exception.exit_code == 20


@pytest.fixture
def server() -> Iterator[str]:
    """A debuginfod that knows one build-id."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == f"/buildid/{make.BUILD_ID}/debuginfo"
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(make.elf())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/"
        listening.shutdown()
        thread.join()


def test_debuginfod_is_asked_by_build_id(tmp_path: Path, server: str) -> None:
    assert run(tmp_path, ASKED, "--debuginfod", server).exit_code == 0
    result = run(tmp_path, ASKED._replace(build_id="ff" * 20), "--debuginfod", server)
    assert "404" in str(result.exception)


def test_a_kernel_of_the_tables_needs_no_package(tmp_path: Path, packages: Path) -> None:
    deb = next(packages.rglob("*test_6.1.1_amd64.deb"))
    offsets = tmp_path / "offsets"
    added = CliRunner().invoke(load(), ["add", str(deb), "--offsets", str(offsets)])
    assert added.exit_code == 0, added
    result = run(tmp_path, ASKED)
    assert result.exit_code == 0, result
    assert "from the table" in result.output


def layout(at: int) -> Layout:
    return {"struct sock": Struct("struct sock", 800, {"sk_protocol": Field(at * 8, 16)})}


def build(number: int, at: int = 516, flavour: str = "cloud-amd64") -> KernelEntry:
    release = f"6.1.0-{number}-{flavour}"
    banner = DEBIAN.format(number, number)
    provenance = {"kind": "btf", "source": "x.deb", "sha256": "0" * 64, "tools": {}}
    return KernelEntry("x86_64", f"{number:040x}", release, banner, "debian", None, provenance, layout(at))


def equal(known: list[KernelEntry], found: KernelEntry, number: int = 50) -> str:
    wanted = build(number)
    asked = request.Request("ff" * 20, wanted.release, "x86_64", str(wanted.banner), request.digest(str(wanted.banner)))
    return fulfil._equal_on_both_sides(asked, found, known)


def test_a_build_between_equal_ones_is_proven_and_the_proof_is_told() -> None:
    note = equal([build(40), build(49), build(52), build(60, 772)], build(50))
    assert "6.1.49-1 and 6.1.52-1" in note


@pytest.mark.parametrize(
    ("known", "found", "why"),
    [
        ([build(49)], build(50), "no build of flavour cloud-amd64 after 6.1.50-1"),
        ([build(52)], build(50), "no build of flavour cloud-amd64 before 6.1.50-1"),
        ([build(49), build(52, 772)], build(50), "struct sock.sk_protocol differs in 6.1.52-1"),
        ([build(49, 772), build(52, 772)], build(50), "struct sock.sk_protocol differs in 6.1.49-1"),
        ([build(49), build(52, flavour="amd64")], build(50), "no build of flavour cloud-amd64 after"),
        ([], build(50), "no build"),
    ],
)
def test_what_is_not_between_equal_ones_is_not_proven(known: list[KernelEntry], found: KernelEntry, why: str) -> None:
    with pytest.raises(fulfil._NotProvenError) as caught:
        equal(known, found)
    assert why in str(caught.value)


def test_a_proven_entry_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "linux-image-6.1.0-50-cloud-amd64_1_amd64.deb"
    package.write_bytes(b"")
    monkeypatch.setattr(fulfil, "extract", lambda *_args, **_more: build(50))
    monkeypatch.setattr(fulfil, "_known", lambda *_: [build(49), build(52)])
    wanted = build(50)
    asked = request.Request("ff" * 20, wanted.release, "x86_64", str(wanted.banner), request.digest(str(wanted.banner)))
    answer = fulfil.fulfil(asked, Places(tmp_path, [tmp_path]))
    shard = table.parse_shard(answer.content, "out.json")
    entry = shard.find("ff" * 20, wanted.release, str(wanted.banner))
    assert entry is not None
    assert entry.provenance["note"] == answer.note
    assert entry.btf_ids is None
