"""The command line of the generator: output, exit codes, and that no user ever sees a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

from sockpid.table.layout import Wanted
from sockpid_gen.cli import cli
from sockpid_gen.extraction import wanted
from sockpid_gen.table import check
from tests import kernel_files as make

ROOT = Path(__file__).parents[4]
WANTED: Wanted = {"struct sock": frozenset(("sk_protocol", "state", "gone"))}


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Tool:
    """Runs the command in this process, in a directory of its own, with images that want what make.btf() has."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["sockpid-gen", *arguments])
        self._capfd.readouterr()
        status: object = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        captured = self._capfd.readouterr()
        assert "Traceback" not in captured.err
        assert isinstance(status, int)
        return Ran(status, captured.out, captured.err)


class _Image:
    """Stands in for a bytecode image that wants what make.btf() has."""

    def wanted(self, _arch: object) -> Wanted:
        return WANTED

    def missing(self, _arch: object, layout: object) -> List[str]:
        assert isinstance(layout, dict)
        return sorted(WANTED.keys() - layout.keys())


@pytest.fixture
def tool(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wanted, "image_for", lambda _: _Image())
    monkeypatch.setattr(check, "image_for", lambda _: _Image())
    Path("vmlinux").write_bytes(make.elf())
    return Tool(capfd, monkeypatch)


def test_add_list_show_check(tool: Tool) -> None:
    added = tool("add", "vmlinux")
    assert (added.status, added.out) == (0, "added 6.1.0-1-test (x86_64, btf) in offsets/x86_64/6.1.json\n")
    assert tool("add", "vmlinux").out.startswith("unchanged 6.1.0-1-test")
    listed = tool("list")
    assert "6.1.0-1-test" in listed.out
    assert make.BUILD_ID[:16] in listed.out
    shown = tool("show", make.BUILD_ID[:8])
    for part in (make.BANNER, "sk_protocol", "bit 16", "5 bits", "absent", "vmlinux"):
        assert part in shown.out
    assert tool("check").out == "ok  offsets/x86_64/6.1.json: 1 kernels\n"


def test_json(tool: Tool) -> None:
    (added,) = json.loads(tool("add", "--json", "vmlinux").out)
    assert added == {
        "source": "vmlinux",
        "arch": "x86_64",
        "release": "6.1.0-1-test",
        "build_id": make.BUILD_ID,
        "kind": "btf",
        "file": "offsets/x86_64/6.1.json",
        "changed": True,
    }
    (listed,) = json.loads(tool("list", "--json").out)
    assert listed["provenance"]["source"] == "vmlinux"
    shown = json.loads(tool("show", "6.1.0-1-test", "--json").out)
    assert shown["types"]["struct sock"]["fields"]["state"] == {"bit_offset": 16, "bit_size": 5}
    assert json.loads(tool("check", "--json").out) == [
        {"file": "offsets/x86_64/6.1.json", "kernels": 1, "problems": []}
    ]


def test_output_has_no_colours_off_a_terminal(tool: Tool) -> None:
    assert "\x1b" not in "".join(tool("add", "vmlinux")[1:] + tool("list")[1:] + tool("--help")[1:])


def test_sources_before_a_bad_one_are_kept(tool: Tool) -> None:
    ran = tool("add", "vmlinux", "missing")
    assert (ran.status, ran.err) == (14, "sockpid-gen: missing: No such file or directory\n")
    assert "6.1.0-1-test" in tool("list").out


def test_bare_btf(tool: Tool) -> None:
    Path("kernel.btf").write_bytes(make.btf())
    ran = tool("add", "kernel.btf")
    assert ran.status == 2
    assert "also give --arch and --banner" in ran.err
    ran = tool("add", "kernel.btf", "--arch", "x86_64", "--banner", make.BANNER, "--build-id", "ab" * 20)
    assert ran.status == 0
    assert tool("check").status == 0


def test_identity_is_for_one_source(tool: Tool) -> None:
    ran = tool("add", "vmlinux", "vmlinux", "--build-id", "ab")
    assert (ran.status, "are for one SOURCE" in ran.err) == (2, True)


def test_check_fails_with_the_table_errors_code(tool: Tool) -> None:
    tool("add", "vmlinux")
    path = Path("offsets/x86_64/6.1.json")
    path.write_bytes(path.read_bytes().replace(b'": ', b'":  ', 1))
    ran = tool("check")
    assert (ran.status, ran.out) == (
        5,
        "bad offsets/x86_64/6.1.json: the shard is not in the form in which sockpid-gen writes it\n",
    )


def test_unknown_and_ambiguous_kernels(tool: Tool) -> None:
    assert tool("list").status == 5
    tool("add", "vmlinux")
    ran = tool("show", "6.2.0")
    assert (ran.status, "has no kernel 6.2.0" in ran.err) == (2, True)
    other = make.elf({".rodata": make.BANNERS, ".notes": make.build_id_note(build_id="ee" * 20), ".BTF": make.btf()})
    Path("vmlinux").write_bytes(other)
    tool("add", "vmlinux")
    ran = tool("show", "6.1.0-1-test")
    assert (ran.status, "several kernels" in ran.err) == (2, True)
    assert tool("show", "eeee").status == 0


@pytest.mark.parametrize("arguments", [["nonsense"], ["add"], ["show"], ["add", "--nonsense"]])
def test_bad_command_lines(tool: Tool, arguments: List[str]) -> None:
    assert tool(*arguments).status == 2


@pytest.mark.parametrize("command", [[], ["add"], ["list"], ["show"], ["check"], ["image"]])
def test_help(tool: Tool, command: List[str]) -> None:
    ran = tool(*command, "--help")
    assert ran.status == 0
    assert "Usage" in ran.out


def test_version_and_reader_that_leaves() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'runtime'}:{ROOT / 'gen'}"}
    command = [sys.executable, "-m", "sockpid_gen"]
    ran = subprocess.run([*command, "--version"], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.startswith("sockpid-gen ")
    with subprocess.Popen(
        [*command, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


IMPORTED = """
import sys
from sockpid_gen.cli import cli
cli.load(*sys.argv[1:])
commands = {}
for command in cli.app.registered_commands:
    module = command.callback.__module__.rpartition(".")[2]
    commands[command.name or command.callback.__name__.replace("_", "-")] = module
import json
print(json.dumps(commands))
"""


@pytest.mark.parametrize(("argument", "commands"), [("image", {"image": "image"}), ("unknown", cli.HOMES)])
def test_a_start_imports_the_module_of_its_command_alone(argument: str, commands: Dict[str, str]) -> None:
    program = [sys.executable, "-c", IMPORTED, argument]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""
    assert json.loads(done.stdout) == commands


def test_help_tells_of_the_commands_in_one_order_however_they_were_imported() -> None:
    code = "import sockpid_gen.cli.verify, sockpid_gen.cli.table\nfrom sockpid_gen.cli import cli, man\n"
    code += "print(*(command.name for command in man.commands()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == list(cli.HOMES)
