"""The page about the generator's costs is what the last run measured."""

from __future__ import annotations

import json

from . import generator_report as report


def test_page_is_what_was_measured() -> None:
    document = json.loads((report.DOCS / "bench/gen.json").read_text())
    page = (report.DOCS / "bench-gen.md").read_text()
    assert page.partition(report.BEGIN)[2].partition(report.END)[0].strip() == report.figures(document).strip()


def test_a_target_that_is_not_met_is_said_to_be_so() -> None:
    rows = {
        "reader, warm": {"cpu_ms": 9.0, "share": 0.09},
        "a process of its own": {"cpu_ms": 41.0},
        "the agreement of drgn, on top": {"cpu_ms": 60.0},
    }
    btf = {"bytes": 1, "types": 1, "wanted fields": 1, "wanted types": 1, "rows": rows, "day": "", "versions": {}}
    text = report.figures({"btf": btf})
    assert "| 0.10 | 0.090  | 0.90 | met |" in text
    assert "| 40 ms | 41 ms | 1.02 | **not met** |" in text
    assert "| 60 ms | 60 ms | 1.00 | met |" in text


def test_kernels_that_need_a_debug_package_are_told_apart() -> None:
    def row(arch: str, form: str, cpu_ms: float) -> report.Json:
        return {"arch": arch, "form": form, "cpu_ms": cpu_ms, "mib": 10, "unpacking": 0.9, "with SHA-256": 1.1}

    rows = {
        "a": row("arm64", "raw", 500.0),
        "b": row("arm64", "raw", 300.0),
        "c": row("amd64", "zstd", 200.0),
        "d": row("armhf", "debug", 9000.0),
    }
    groups = dict(report.groups(rows))
    assert list(groups) == [
        "amd64, zstd", "arm64, raw image", "armhf, DWARF of a debug package", "all with BTF", "all",
    ]  # fmt: skip
    assert [row["cpu_ms"] for row in groups["all with BTF"]] == [500, 300, 200]
    assert report.spread(groups["arm64, raw image"]) == "2 | 10 | 400 ± 100 | 400 | 300 | 500 | 0.90 | 1.10"
    assert len(groups["all"]) == 4
