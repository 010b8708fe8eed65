"""Who the kernel is must be told the same by all that tell it."""

from __future__ import annotations

import pytest

from sockpid.errors import UnknownKernelError
from sockpid.host import kernel

BANNER = "Linux version 5.15.0-91-generic (buildd@host) (gcc 11) #101-Ubuntu SMP"


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_version_code", 5 << 16 | 15 << 8 | 131)  # Ubuntu's is another than its release


def test_the_release_is_the_banners() -> None:
    assert kernel._release(BANNER, "5.15.0-91-generic") == "5.15.0-91-generic"


def test_what_is_told_to_old_programs_is_not_believed() -> None:
    assert kernel._release(BANNER, "2.6.75-91-generic") == "5.15.0-91-generic"


@pytest.mark.parametrize("uname", ["6.1.0-50-amd64", "5.15.0-92-generic", ""])
def test_a_banner_and_a_release_that_contradict_one_another(uname: str) -> None:
    with pytest.raises(UnknownKernelError, match=r"5\.15\.0-91-generic") as refusal:
        kernel._release(BANNER, uname)
    assert repr(uname) in str(refusal.value)


def test_a_version_that_the_vdso_contradicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_version_code", 6 << 16 | 1 << 8 | 170)
    with pytest.raises(UnknownKernelError, match=r"5\.15\.0-91-generic.*version 6\.1"):
        kernel._release(BANNER, "5.15.0-91-generic")


def test_without_a_vdso_the_banner_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_version_code", 0)
    assert kernel._release(BANNER, "5.15.0-91-generic") == "5.15.0-91-generic"


def test_what_is_no_banner() -> None:
    with pytest.raises(UnknownKernelError, match="gVisor"):
        kernel._release("gVisor", "4.4.0")
