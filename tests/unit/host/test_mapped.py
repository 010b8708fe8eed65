"""BTF in a mapped file is read as it is from bytes; what cannot be mapped is read."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest

from sockpid.btf.btf import Btf
from sockpid.host import mapped
from tests import kernel_files as make

WANTED = {"struct sock": frozenset(("sk_protocol", "state", "gone")), "struct absent": frozenset(("x",))}


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_mapped_btf_says_what_its_bytes_say(byte_order: str, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make.btf(byte_order))
    with path.open("rb") as file:
        content = mapped.content(file)
    assert isinstance(cast(object, content), mmap.mmap)  # it goes by the name of bytes
    there, here = Btf(content), Btf(make.btf(byte_order))
    assert there.extract(WANTED, 8) == here.extract(WANTED, 8)
    assert there.func_ids(["tcp_connect", "absent"]) == here.func_ids(["tcp_connect", "absent"]) != {}
    assert [there.type(i) for i in there.ids()] == [here.type(i) for i in here.ids()]


def test_what_the_kernel_does_not_map_is_read(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert mapped.content(file) == b""
    path.write_bytes(make.btf())
    with patch("mmap.mmap", side_effect=OSError(19, "No such device")), path.open("rb") as file:
        assert mapped.content(file) == make.btf()
