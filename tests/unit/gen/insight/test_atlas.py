"""The atlas as a person sees it, in a browser without a network: bars where the table says, filters, mouse and keys."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from playwright.sync_api import Browser, Page

from sockpid.table.layout import Field
from sockpid_gen import Table
from sockpid_gen.insight import atlas
from tests.browser import open_page
from tests.unit.gen.cli.test_cli import Tool
from tests.unit.gen.insight.test_insight import CLOUD, GONE, NEW, OLD, SAME, UPDATE, kernel

PROTOCOL = '[data-arch=x86_64] [data-field="struct sock.sk_protocol"]'


def table_of(*kernels: Any) -> Table:
    table = Table()
    for one in kernels:
        table.add(one)
    return table


ARM64 = kernel("6.1.0-3-arm64", "bb01", Field(530 * 8, 16), "aarch64")
RT = kernel("6.1.0-3-rt-amd64", "aa07", Field(600 * 8, 16))
SMALL = (OLD, SAME, UPDATE, CLOUD, NEW, GONE, RT, ARM64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    path.write_bytes(atlas.page(table_of(*SMALL)))
    return path


@pytest.fixture
def page(chromium: Browser, drawn: Path) -> Iterator[Page]:
    with open_page(chromium, drawn) as opened:
        yield opened


def bars(page: Page, cells: str = PROTOCOL) -> List[Dict[str, Any]]:
    script = """row => [...row.querySelectorAll(".bar")].map(bar => ({value: bar.dataset.value,
        absent: bar.classList.contains("absent"), left: bar.offsetLeft, width: bar.offsetWidth + 2,
        colour: getComputedStyle(bar).backgroundColor}))"""
    found: List[Dict[str, Any]] = page.locator(cells).evaluate(script)
    return found


def test_the_page_is_complete_and_always_the_same(drawn: Path) -> None:
    text = drawn.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"\b(src|href)=|https?://|@import|url\(", text)
    assert atlas.page(table_of(*reversed(SMALL))) == drawn.read_bytes()


def test_a_field_that_moves_is_bars_of_other_colours(page: Page) -> None:
    found = bars(page)
    assert [bar["value"] for bar in found] == ["540", "544", "absent", "540", "600"]
    assert [bar["absent"] for bar in found] == [False, False, True, False, False]
    assert len({bar["colour"] for bar in found if not bar["absent"]}) == 3
    assert found[0]["colour"] == found[3]["colour"]
    # 540 in one column of 6.1, 544 in the next one and, as one bar, in 6.12.
    widths = [bar["width"] for bar in found]
    assert widths[1] == 2 * widths[0] == 2 * widths[2]
    assert all(a["left"] + a["width"] <= b["left"] + 2 for a, b in pairwise(found))


def test_what_never_moves_is_words(page: Page) -> None:
    section = page.locator("[data-arch=x86_64]")
    assert section.locator("[data-field]").count() == 1
    told = section.locator(".never").inner_text()
    assert "struct sock.__sk_common.skc_daddr at 0" in told
    page.uncheck("#moving")
    assert section.locator('[data-field="struct sock.__sk_common.skc_daddr"] .bar.still').count() == 3


def test_filters(page: Page) -> None:
    assert page.locator("section").count() == 2
    page.uncheck("#arches input[value=x86_64]")
    assert page.locator("section h2").all_inner_texts() == ["aarch64 1 kernels, 1 layouts"]
    page.check("#arches input[value=x86_64]")
    page.uncheck("#flavours input[value=rt]")
    page.uncheck("#flavours input[value=cloud]")
    assert [bar["value"] for bar in bars(page)] == ["540", "544", "absent"]
    page.check("input[name=columns][value=build]")
    widths = [bar["width"] for bar in bars(page)]
    assert widths[0] == widths[1] == 2 * widths[2]  # two builds each
    page.fill("#search", "nonsense")
    assert page.locator(PROTOCOL).count() == 0
    page.fill("#search", "SK_PROTO")
    assert page.locator(PROTOCOL).count() == 1
    page.click("#arches button >> text=none")
    assert "No kernel is left" in page.locator("main").inner_text()


def test_pointing_tells_the_provenance(page: Page) -> None:
    detail = page.locator("#detail")
    assert "Point at a bar" in detail.inner_text()
    page.locator(PROTOCOL).locator(".bar").nth(0).hover()
    told = detail.inner_text()
    for part in ("struct sock.sk_protocol on x86_64: 540 (2 bytes)", "6.1.0-2-amd64", "BTF of aa01.deb", "sha256 000"):
        assert part in told
    assert "tcp_use" in told
    assert "aa03.deb" not in told


def test_keys_do_what_the_mouse_does(page: Page) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "grid":
            break
    detail = page.locator("#detail")
    assert "540 (2 bytes)" in detail.inner_text()
    page.keyboard.press("ArrowRight")
    assert "544 (2 bytes)" in detail.inner_text()
    page.keyboard.press("End")
    assert "600 (2 bytes)" in detail.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "sk_protocol on x86_64: absent" in detail.inner_text()


def test_many_kernels_stay_readable(chromium: Browser, tmp_path: Path) -> None:
    """700 kernels of six architectures, whose fields move now and then."""
    many = []
    arches = ("x86_64", "aarch64", "arm", "ppc64le", "riscv64", "s390x")
    for n in range(700):
        arch, step = arches[n % 6], n // 6
        release = f"{5 + step // 40}.{step // 10 % 4}.{step % 10}-{'rt-' if n % 5 == 0 else ''}{arch}"
        many.append(kernel(release, f"{n:08x}", Field((400 + step // 7 * 4) * 8, 16), arch))
    path = tmp_path / "atlas.html"
    path.write_bytes(atlas.page(table_of(*many)))
    with open_page(chromium, path) as page:
        assert page.evaluate("document.body.dataset.kernels") == "700"
        assert page.evaluate("document.querySelectorAll('*').length") < 20_000
        box = page.locator("[data-arch=x86_64] .grid").bounding_box()
        assert box is not None
        assert box["width"] <= 1400
        clipped = "e => e.textContent && e.scrollWidth > e.clientWidth + 1"
        for mode in ("layout", "build"):
            page.check(f"input[name=columns][value={mode}]")
            assert page.evaluate(f"[...document.querySelectorAll('.bar')].filter({clipped}).length") == 0


def test_the_command_draws_the_published_table(
    chromium: Browser, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[4])
    path = tmp_path / "atlas.html"
    ran = Tool(capfd, monkeypatch)("atlas", "-o", str(path))
    kernels = len(Table.load("offsets"))
    assert (ran.status, f"drawn {kernels} kernels" in ran.out) == (0, True)
    with open_page(chromium, path, color_scheme="dark") as page:
        assert page.evaluate("document.body.dataset.kernels") == str(kernels)
        assert page.locator(f"{PROTOCOL} .bar").count() > 2
