"""The examples of docs/api.md, run from top to bottom."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Dict

import pytest

from tests import kernel_files as make

ROOT = Path(__file__).parents[2]


def test_examples_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "offsets", "offsets")
    Path("vmlinux").write_bytes(make.elf())
    Path("kernel.btf").write_bytes(make.btf())
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    namespace: Dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    printed = capsys.readouterr().out
    for part in (f"6.1.0-1-test x86_64 {make.BUILD_ID}", "0 bytes from the start", "BTF of linux-image-"):
        assert part in printed
    assert namespace["changed"] >= 0
    assert namespace["mine"].find(make.BUILD_ID).release == "6.1.0-1-test"
    assert Path("my-offsets/x86_64/6.1.json").exists()
