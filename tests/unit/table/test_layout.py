"""Paths of fields."""

from __future__ import annotations

import pytest

from sockpid.table.layout import parse_path


def test_steps_of_a_path() -> None:
    assert parse_path("__sk_common.skc_daddr") == ("__sk_common", "skc_daddr")
    assert parse_path("a.regs[0][12].b") == ("a", "regs", 0, 12, "b")


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a.",
        "a..b",
        "1a",
        "a b",
        "a[",
        "a]",
        "a[]",
        "a[x]",
        "a[-1]",
        "a[1",
        "a[1]b",
        "[0]",
        "\u00e9",
        "a[\u00b2]",
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="is not a field path"):
        parse_path(path)
