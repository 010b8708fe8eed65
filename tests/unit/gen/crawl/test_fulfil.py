"""`sockpid-gen fulfil`: the right package is taken, another build is refused or proven, and what was tried is said."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import pytest
from typer.testing import CliRunner, Result

from sockpid.errors import RequestError, SockpidError, SourceError
from sockpid.request import request
from sockpid.table import table
from sockpid.table.layout import Field, Layout, Struct
from sockpid_gen import Table
from sockpid_gen.cli.cli import load
from sockpid_gen.crawl import fulfil
from sockpid_gen.extraction.entry import KernelEntry
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


def test_an_equal_build_id_does_not_outweigh_another_banner(tmp_path: Path, packages: Path) -> None:
    """Of a package, and of a kernel of the tables: one of the two is not what it says."""
    other = make.BANNER.replace("#1", "#2")
    asked = ASKED._replace(banner=request.without_builder(other), banner_sha256=request.digest(other))
    result = run(tmp_path, asked, "--from", str(packages))
    assert isinstance(result.exception, SourceError)
    assert "amd64.deb: it has the build-id" in str(result.exception)
    assert "one of the two is not what it says" in str(result.exception)
    deb = next(packages.rglob("*test_6.1.1_amd64.deb"))
    added = CliRunner().invoke(load(), ["add", str(deb), "--offsets", str(tmp_path / "offsets")])
    assert added.exit_code == 0, added
    result = run(tmp_path, asked)
    assert isinstance(result.exception, SourceError)
    assert "the table: it has the build-id" in str(result.exception)
    assert not (tmp_path / "out.json").exists()


def test_an_equal_build_id_does_not_outweigh_another_release(tmp_path: Path, packages: Path) -> None:
    other = make.BANNER.replace("6.1.0-1-test", "6.1.0-1-test-x")
    asked = request.Request(
        make.BUILD_ID, "6.1.0-1-test-x", "x86_64", request.without_builder(other), request.digest(other)
    )
    result = run(tmp_path, asked, "--from", str(next(packages.rglob("*test_6.1.1_amd64.deb"))))
    assert isinstance(result.exception, SourceError)
    assert "it has the build-id" in str(result.exception)


def test_a_request_that_contradicts_itself_has_no_answer(tmp_path: Path, packages: Path) -> None:
    result = run(tmp_path, ASKED._replace(release="6.1.0-2-test"), "--from", str(packages))
    assert isinstance(result.exception, RequestError)
    assert "contradicts itself: release 6.1.0-2-test" in str(result.exception)


@pytest.mark.parametrize("release", ["9.1**", "9.1[", "9.1?", "9.1\u00e9", "9.1\x00", "9.1" + "1" * 5000])
def test_odd_releases_are_answered_by_an_error(tmp_path: Path, packages: Path, release: str) -> None:
    banner = f"Linux version {release} (a@b) #1"
    asked = request.Request(None, release, "x86_64", request.without_builder(banner), request.digest(banner))
    result = run(tmp_path, asked, "--from", str(packages))
    assert isinstance(result.exception, SockpidError)


def test_what_was_concluded_says_nothing_for_others(tmp_path: Path) -> None:
    """The answer for a build between two others, put into a table, is no neighbour of a third."""
    noted = build(52)._replace(provenance={**build(52).provenance, "note": "concluded"})
    made = Table()
    for one in (build(49), noted):
        made.add(one)
    made.save(tmp_path)
    asked = request.Request("ff" * 20, build(50).release, "x86_64", str(build(50).banner), "0" * 64)
    assert [k.release for k in fulfil._known(asked, tmp_path)] == [build(49).release]


def test_a_damaged_request_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    result = run(tmp_path, ASKED)
    assert "nothing: give --from PATH" in str(result.exception)
    (tmp_path / "bad.req").write_text(ASKED.text.replace("6.1.0-1-test", "6.1.0-7-test"))
    result = CliRunner().invoke(load(), ["fulfil", str(tmp_path / "bad.req"), "--no-apt"])
    assert isinstance(result.exception, RequestError)
    assert result.exception.exit_code == 20


class Debuginfod(NamedTuple):
    """A server of debug information, and what it has by build-id."""

    url: str
    has: dict[str, bytes]


@pytest.fixture
def server() -> Iterator[Debuginfod]:
    has: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, what, build_id, kind = self.path.split("/")
            known = has.get(build_id) if (what, kind) == ("buildid", "debuginfo") else None
            self.send_response(404 if known is None else 200)
            self.end_headers()
            self.wfile.write(known or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield Debuginfod(f"http://127.0.0.1:{listening.server_address[1]}/", has)
        listening.shutdown()
        thread.join()


def test_debuginfod_is_asked_by_build_id(tmp_path: Path, server: Debuginfod) -> None:
    server.has[make.BUILD_ID] = make.elf()
    result = run(tmp_path, ASKED, "--debuginfod", server.url)
    assert result.exit_code == 0
    assert f"from {make.BUILD_ID}.debug" in result.output
    result = run(tmp_path, ASKED._replace(build_id="ff" * 20), "--debuginfod", server.url)
    assert "404" in str(result.exception)


WANTED = "6.1.0-50-cloud-amd64"


def of_debian(number: int, at: int = 0) -> bytes:
    """A kernel of Debian's; in one with another `at` struct sock is another."""
    banner = DEBIAN.format(number, number).encode()
    notes = make.build_id_note(build_id=f"{number:040x}")
    return make.elf({".rodata": b"\0" + banner + b"\n\0", ".notes": notes, ".BTF": make.btf(at=at)})


@pytest.mark.parametrize("where", ["a directory", "debuginfod"])
@pytest.mark.parametrize(
    ("before", "found", "after", "differs"),
    [(0, 0, 0, ""), (0, 0, 1, "6.1.52-1"), (1, 0, 0, "6.1.49-1"), (1, 0, 1, "6.1.49-1"), (0, 1, 0, "6.1.49-1")],
)
def test_another_build_is_taken_only_if_it_is_proven_equal(
    tmp_path: Path, server: Debuginfod, where: str, before: int, found: int, after: int, differs: str
) -> None:
    """All that is found is a build of another id. The tables have the builds on both sides of the wanted one."""
    for number, at in ((49, before), (52, after)):
        (tmp_path / "vmlinux").write_bytes(of_debian(number, at))
        added = CliRunner().invoke(
            load(),
            ["add", str(tmp_path / "vmlinux"), "--distribution", "debian", "--offsets", str(tmp_path / "offsets")],
        )
        assert added.exit_code == 0, added
    banner, missing = DEBIAN.format(50, 50), "ff" * 20
    asked = request.Request(missing, WANTED, "x86_64", request.without_builder(banner), request.digest(banner))
    if where == "debuginfod":
        server.has[missing] = of_debian(50, found)
        result = run(tmp_path, asked, "--debuginfod", server.url, "--json")
    else:
        (tmp_path / "pool").mkdir()
        package = make.deb({f"./boot/vmlinux-{WANTED}": of_debian(50, found)})
        (tmp_path / f"pool/linux-image-{WANTED}_6.1.50-1_amd64.deb").write_bytes(package)
        result = run(tmp_path, asked, "--from", str(tmp_path / "pool"), "--json")
    if differs:
        assert isinstance(result.exception, SourceError)
        assert f"{50:040x}" in str(result.exception)
        assert f"not proven equal: struct sock.sk_protocol differs in {differs}" in str(result.exception)
        assert not (tmp_path / "out.json").exists()
        return
    assert result.exit_code == 0, result
    note = json.loads(result.stdout)["note"]
    assert f"{50:040x}" in note
    assert "6.1.49-1 and 6.1.52-1, the builds before and after it, are equal in every field" in note
    entry = table.parse_shard((tmp_path / "out.json").read_bytes(), "out.json").find(missing, WANTED, "")
    assert entry is not None
    assert (entry.provenance["note"], entry.btf_ids) == (note, None)


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
