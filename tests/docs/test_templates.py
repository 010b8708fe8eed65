"""What people are asked for in issues: commands that are there, and answers that name neither hosts nor users."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.kernel.conftest import REQUIRED, RUNTIME, cannot_load_bpf

from .page import ROOT
from .typed import typed, wrong

TEMPLATES = sorted((ROOT / ".github").rglob("*.md"))
ISSUES = [page for page in TEMPLATES if page.parent.name == "ISSUE_TEMPLATE"]

EVENT = {
    "kind": "rto", "saddr": "192.0.2.1", "daddr": "192.0.2.2", "host": "secret-host", "comm": "secret-name", "pid": 7,
    "opener_comm": "secret-name", "cgroup": "/secret.slice", "labels": {"cmdline": "secret"}, "doubt": "not-held",
    "sharers": [{"pid": 7, "comm": "secret-name"}],
}  # fmt: skip


def of(page: Path) -> str:
    return page.name


def test_there_is_one_for_each_kind() -> None:
    assert [page.name for page in TEMPLATES] == [
        "kernel-not-known.md", "something-else.md", "wrong-owner.md", "pull_request_template.md"
    ]  # fmt: skip


@pytest.mark.parametrize("page", ISSUES, ids=of)
def test_issues_begin_as_the_host_of_the_repository_wants(page: Path) -> None:
    _, head, rest = page.read_text().split("---\n", 2)
    fields = yaml.safe_load(head)
    assert {"name", "about", "title", "labels"} == set(fields)
    assert fields["name"]
    assert len(rest.splitlines()) < 45


@pytest.mark.parametrize("page", ISSUES, ids=of)
def test_commands_are_there(page: Path) -> None:
    found = typed(re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL))
    assert ["sockpid", "doctor", "--json"] in found or ["sockpid", "doctor", "--request"] in found
    assert not [(words, bad) for words in found if (bad := wrong(words))]


@pytest.mark.parametrize("page", TEMPLATES, ids=of)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"\b(?:docs/)?[\w/-]+\.md\b", page.read_text()):
        assert (ROOT / name).exists(), name


def test_an_event_is_told_without_names() -> None:
    (command,) = (c for c in typed((ROOT / ".github/ISSUE_TEMPLATE/wrong-owner.md").read_text()) if "-c" in c)
    done = subprocess.run(
        [sys.executable, *command[1:]], input=json.dumps(EVENT), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"kind": "rto", "pid": 7, "doubt": "not-held"}


@pytest.mark.kernel
@pytest.mark.parametrize("command", ["doctor", "selftest"])
def test_what_the_kernel_says_names_nobody(command: str) -> None:
    """As the templates have it: without the lines of the banner, which says who built the kernel."""
    if not REQUIRED and (reason := cannot_load_bpf()):
        pytest.skip(reason)
    elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname secret-host && exec "$@"', "sh"]
    told = subprocess.run([*elsewhere, *RUNTIME, command, "--json"], capture_output=True, text=True, check=True).stdout
    kept = "".join(line for line in told.splitlines(keepends=True) if '"banner"' not in line)
    assert "banner" not in json.loads(kept)
    builder = re.search(r"\((\S+@\S+)\)", json.loads(told)["banner"])
    for private in ("secret-host", builder[1] if builder else "@"):
        assert private not in kept
