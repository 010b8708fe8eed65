"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sockpid import whole_file


def test_a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, mode in ((b"old", 0o644), (b"new", 0o755)):
        whole_file.write(str(path), content, mode)
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, mode)
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    (taken / "by").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        whole_file.write(str(taken), b"new")
    with pytest.raises(FileNotFoundError):
        whole_file.write(str(tmp_path / "nowhere/file"), b"new")
    assert os.listdir(tmp_path) == ["taken"]
