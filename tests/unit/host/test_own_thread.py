"""What a thread says of itself, also where /proc has no directory for the calling one (before Linux 3.17)."""

from __future__ import annotations

import pytest

from sockpid.host import kernel


@pytest.mark.parametrize("directory", [kernel.THREAD, "/proc/nothing"])
def test_the_first_thread_knows_its_rights_and_flags(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = kernel.capability_sets(), kernel.task_flags()
    monkeypatch.setattr(kernel, "THREAD", directory)
    assert (kernel.capability_sets(), kernel.task_flags()) == expected
