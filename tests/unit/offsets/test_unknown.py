"""What is said of a kernel of which no source speaks."""

from __future__ import annotations

from typing import Any

import pytest

from sockpid.arch import ARCHES
from sockpid.errors import UnknownKernelError
from sockpid.host.kernel import Identity
from sockpid.offsets import offsets
from sockpid_gen.extraction.wanted import image_for

ARCH = ARCHES["x86_64"]
ADVICE = ("sockpid-gen fulfil", "sockpid calibrate")


def said(release: str) -> str:
    banner = f"Linux version {release} (a@b) (gcc) #1 SMP"
    values: dict[str, Any] = {"arch": ARCH, "release": release, "build_id": "ab" * 20, "banner": banner}
    known: Any = {name: values.get(name) for name in Identity._fields}
    with pytest.raises(UnknownKernelError) as caught:
        offsets.find(image_for(ARCH), Identity(**known), None, frozenset(["live-btf"]))
    return str(caught.value)


@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "4.4.0-210-generic", "4.8.17"])
def test_a_kernel_that_is_too_old_is_told_so_and_to_do_nothing(release: str) -> None:
    line = said(release)
    assert "Linux before 4.9 is not supported" in line
    assert not [advice for advice in ADVICE if advice in line]


@pytest.mark.parametrize("release", ["4.9.0-19-amd64", "4.15.0-213-generic", "6.12.999+deb13-amd64", "12.0.1"])
def test_one_that_is_not_hears_what_can_be_done(release: str) -> None:
    line = said(release)
    assert "is not supported" not in line
    assert all(advice in line for advice in ADVICE)


def test_the_nearest_builds_are_named_and_not_all() -> None:
    (line,) = (line for line in said("6.12.999+deb13-cloud-amd64").splitlines() if "table:" in line)
    assert "+deb13-cloud-amd64" in line
    assert " more" in line
    assert len(line) < 250
