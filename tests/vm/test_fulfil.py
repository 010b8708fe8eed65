"""`sockpid-gen fulfil` with a real archive: a kernel that was taken out of the tables is found, proven, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sockpid.errors import SourceError
from sockpid.request import request
from sockpid.table import table
from sockpid_gen.cli.cli import load
from sockpid_gen.extraction.entry import KernelEntry, extract
from sockpid_gen.table import shard as shards

from .kernels import Guest

OTHER = "ff" * 20


@pytest.fixture(scope="module")
def found(guest: Guest) -> KernelEntry:
    return extract(guest.kernel.deb())


def tables(directory: Path, guest: Guest, *builds: KernelEntry) -> None:
    """A table of these builds alone, in place of the published one: that is another one every few days."""
    path = directory / guest.kernel.shard
    document = shards.empty(path.parent.name, path.stem)
    for entry in builds:
        shards.merge(document, entry, path.name)
    shards.save(path, document)


def build(found: KernelEntry, guest: Guest, version: str, build_id: str) -> KernelEntry:
    """The same kernel, as if it had been packaged as another version."""
    banner = str(found.banner).replace(f"Debian {guest.kernel.package.version}", f"Debian {version}")
    assert version in banner
    return found._replace(build_id=build_id, banner=banner)


def fulfil(asked: KernelEntry, directory: Path, *arguments: str) -> Result:
    banner = str(asked.banner)
    text = request.Request(
        asked.build_id, asked.release, asked.arch, request.without_builder(banner), request.digest(banner)
    ).text
    (directory / "host.req").write_text(text)
    where = ["-o", str(directory / "host.json"), "--offsets", str(directory / "offsets"), "--json"]
    return CliRunner().invoke(load(), ["fulfil", str(directory / "host.req"), *where, *arguments])


@pytest.mark.guests("6.1/amd64")
def test_apt_has_a_kernel_that_the_tables_lack(guest: Guest, found: KernelEntry, tmp_path: Path) -> None:
    tables(tmp_path / "offsets", guest, build(found, guest, f"{guest.kernel.series}.1-1", "dd" * 20))
    suites = [word for s in (guest.kernel.suite, f"{guest.kernel.suite}-security") for word in ("--suite", s)]
    result = fulfil(found, tmp_path, "--cache", str(tmp_path / "apt"), *suites)
    assert result.exit_code == 0, result
    report = json.loads(result.stdout)
    assert (report["build_id"], report["note"]) == (found.build_id, None)
    assert guest.kernel.package.name in report["source"]
    shard = table.parse_shard((tmp_path / "host.json").read_bytes(), "host.json")
    entry = shard.find(found.build_id, found.release, str(found.banner))
    assert entry is not None
    assert shard.layout(entry) == found.layout


@pytest.mark.guests("6.1/amd64")
def test_another_build_is_taken_only_between_equal_ones(guest: Guest, found: KernelEntry, tmp_path: Path) -> None:
    """The package there is of another build. The builds before and after it are made up."""
    asked = found._replace(build_id=OTHER)
    package = ["--no-apt", "--from", str(guest.kernel.deb())]
    earlier = build(found, guest, f"{guest.kernel.series}.1-1", "dd" * 20)
    tables(tmp_path / "offsets", guest, earlier)
    refused = fulfil(asked, tmp_path, *package)
    assert isinstance(refused.exception, SourceError)
    assert "not proven equal: the tables have no build of flavour cloud-amd64 after" in str(refused.exception)
    assert not (tmp_path / "host.json").exists()
    later = build(found, guest, f"{guest.kernel.series}.999-1", "ee" * 20)
    tables(tmp_path / "offsets", guest, earlier, later)
    taken = fulfil(asked, tmp_path, *package)
    assert taken.exit_code == 0, taken
    note = json.loads(taken.stdout)["note"]
    beside = f"{guest.kernel.series}.1-1 and {guest.kernel.series}.999-1"
    assert f"{beside}, the builds before and after it, are equal in every field" in note
    assert str(found.build_id) in note
    shard = table.parse_shard((tmp_path / "host.json").read_bytes(), "host.json")
    entry = shard.find(OTHER, found.release, str(found.banner))
    assert entry is not None
    assert entry.provenance["note"] == note
