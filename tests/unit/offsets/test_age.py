"""How old a table is: as old as the newest kernel in it, by what banners say."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from sockpid.offsets.age import NEWER, age, built
from sockpid.table import table, writer

ROOT = Path(__file__).parents[3]
DEBIAN = "Linux version 6.1.0-50 (a@b) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 ({})"
EL = "Linux version 4.18.0-553 (mockbuild@x) (gcc) #1 SMP {}"


@pytest.mark.parametrize(
    ("banner", "day"),
    [
        (DEBIAN.format("2026-11-30"), (2026, 11, 30)),
        (DEBIAN.format("2026-11-30") + "\n", (2026, 11, 30)),
        (EL.format("Thu Nov 5 12:14:20 EST 2026"), (2026, 11, 5)),
        (EL.format("PREEMPT Tue Dec  1 02:03:04 UTC 2026"), (2026, 12, 1)),
        (EL.format("Tue Dec  1 02:03:04 2026"), (2026, 12, 1)),
        (EL.format("Tue Dex  1 02:03:04 UTC 2026"), None),
        (EL.format("Tue Feb 31 02:03:04 UTC 2026"), None),
        (DEBIAN.format("2026-13-30"), None),
        (DEBIAN.format("2026-11-30") + " and more", None),
        ("", None),
        ("Linux version 6.18.44 #1 SMP PREEMPT_DYNAMIC @0", None),
    ],
)
def test_when_a_kernel_was_built(banner: str, day: tuple[int, int, int] | None) -> None:
    assert built(banner) == (None if day is None else datetime.date(*day))


def shard(*banners: str | None) -> table.Shard:
    document = writer.empty("x86_64", "6.1", "sockpid-gen 0")
    for number, banner in enumerate(banners, 50):
        entry: dict[str, Any] = {"build_id": f"{number:040x}", "release": f"6.1.0-{number}", "banner": banner}
        entry |= {"distribution": None, "btf_ids": None, "provenance": {"kind": "btf"}}
        writer.add(document, entry, {"struct net": None})
    return table.parse_shard(writer.encode(document), "offsets/x86_64/6.1.json")


def test_the_newest_is_the_one_built_last() -> None:
    known = shard(DEBIAN.format("2026-11-30"), DEBIAN.format("2026-11-02"), None)
    assert age(known, False, DEBIAN.format("2026-12-01"))[:5] == ("6.1", 3, "6.1.0-50", "2026-11-30", False)
    assert age(known, False, DEBIAN.format("2026-12-01")).days == 1
    assert age(known, True, DEBIAN.format("2026-11-28")).days == -2
    assert age(known, True, "Linux version 6.1.0-60 #1").days is None


def test_a_table_without_dates() -> None:
    assert age(shard(None), False, DEBIAN.format("2026-12-01"))[1:] == (1, None, None, False, None)


def test_banners_of_the_published_table_tell_when() -> None:
    paths = sorted((ROOT / "offsets").glob("*/*.json"))
    banners = [e.banner for path in paths for e in table.parse_shard(path.read_bytes(), path.name).entries]
    assert sum(banner is not None for banner in banners) > 600
    assert [banner for banner in banners if banner is not None and built(banner) is None] == []


def test_of_every_origin_it_is_known_what_a_newer_table_changes() -> None:
    assert set(NEWER) == {"table", "btf", "consensus", "calibrated", None}
