"""The page of `sockpid graph`, used in a real browser as a person would."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from sockpid.graph import TransportGraph, View
from sockpid.graph.export import to_html
from sockpid.outputs.base import gap
from tests.browser import open_page
from tests.streams import Cluster, document, unknown


def page_of(path: Path, events: Iterable[dict[str, Any]]) -> Path:
    graph = TransportGraph()
    for event in events:
        graph.handle_transport_event(event)
    path.write_text(to_html(View.of(graph)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = Cluster(12, 4, 3, culprit=5, factor=40).events(6000)
    return page_of(tmp_path_factory.mktemp("page") / "graph.html", events)


def test_a_person_finds_the_culprit(chromium: Browser, cluster: Path) -> None:
    with open_page(chromium, cluster) as page:
        assert "6,000 retransmits on 12 hosts" in page.inner_text("#intro")
        assert page.locator(".node").count() == 12
        assert page.locator(".node.bad").get_attribute("data-title") == "node-0005"
        card = page.locator(".card")
        assert card.count() == 1
        assert card.inner_text().startswith("host node-0005")
        card.click()
        assert "times as many as expected" in page.inner_text("#details")
        assert page.locator(".node.on").get_attribute("data-title") == "node-0005"


def test_hovering_tells_and_clicking_explains(chromium: Browser, cluster: Path) -> None:
    with open_page(chromium, cluster) as page:
        node = page.locator('.node[data-title="node-0003"] .dot')
        node.hover()
        assert "node-0003" in page.inner_text("#tip")
        assert "retransmits" in page.inner_text("#tip")
        assert page.locator(".node.dim").count() > 0
        node.click()
        details = page.inner_text("#details")
        assert "sent by it" in details
        assert "python3[" in details
        page.locator("#details td button").first.click()
        assert "round trip, latest" in page.inner_text("#details")
        page.keyboard.press("Escape")
        assert "Click a circle" in page.inner_text("#details")


def test_search_group_and_filter(chromium: Browser, cluster: Path) -> None:
    with open_page(chromium, cluster) as page:
        page.fill("#search", "RANK=13")
        assert page.locator(".node:not(.dim)").get_attribute("data-title") == "node-0003"
        page.press("#search", "Enter")
        assert page.inner_text("#details h2 >> nth=0") == "node-0003"
        page.click("#reset")
        page.select_option("#group", "process")
        assert page.locator(".node").count() > 30
        assert page.locator(".node.bad").count() == 4
        before = page.locator(".edge").count()
        page.evaluate("document.getElementById('least').value = 6; document.getElementById('least').oninput()")
        assert 0 < page.locator(".edge").count() < before
        assert page.inner_text("#leasted") == "64"


def test_everything_is_within_sight(chromium: Browser, cluster: Path) -> None:
    """No circle lies under a pane or beyond the edge, wide or narrow."""
    for width, height in ((1400, 900), (1100, 700)):
        with open_page(chromium, cluster, width, height) as page:
            frame = page.locator("#picture").bounding_box()
            assert frame is not None
            for dot in page.locator(".node .dot").all():
                box = dot.bounding_box()
                assert box is not None
                assert frame["x"] <= box["x"] <= frame["x"] + frame["width"] - box["width"]
                assert frame["y"] + 40 <= box["y"] <= frame["y"] + frame["height"] - box["height"]


def test_names_do_not_lie_on_each_other(chromium: Browser, tmp_path: Path) -> None:
    many = page_of(tmp_path / "many.html", Cluster(150, 4, 4, culprit=50).events(10000))
    with open_page(chromium, many) as page:
        boxes = page.evaluate("""() => [...document.querySelectorAll(".node text")].map(text => {
            const box = text.getBoundingClientRect(); return [box.left, box.right, box.top + 3, box.bottom - 3]; })""")
        assert "node-0050" in (page.locator(".node.bad text").text_content() or "")
    assert len(boxes) > 20
    for number, (left, right, top, bottom) in enumerate(boxes):
        assert not [o for o in boxes[:number] if o[0] < right and left < o[1] and o[2] < bottom and top < o[3]]


def test_the_same_events_give_the_same_picture(chromium: Browser, cluster: Path) -> None:
    pictures = []
    for _ in range(2):
        with open_page(chromium, cluster) as page:
            pictures.append(page.locator("#world").inner_html())
    assert pictures[0] == pictures[1]


def test_whose_events_are_missing(chromium: Browser, tmp_path: Path) -> None:
    events = [*Cluster(4, 2, 2).events(100), gap("node-0002", 112).document, gap("elsewhere", 3).document]
    with open_page(chromium, page_of(tmp_path / "gaps.html", events)) as page:
        assert "115 (slow readers)" in page.inner_text("#totals")
        for host, told in (("node-0002", True), ("node-0001", False)):
            page.locator(f'.node[data-title="{host}"] .dot').click()
            assert ("112 (slow readers)" in page.inner_text("#details")) is told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_can_be_read(chromium: Browser, cluster: Path, scheme: str) -> None:
    """Text and what is behind it differ by at least 4.5 : 1 (WCAG 2.1, 1.4.3)."""
    with open_page(chromium, cluster, color_scheme=scheme) as page:
        ratio = page.evaluate("""() => {
            const part = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
            const level = c => { const [r, g, b] = c.match(/\\d+/g).map(part);
                return .2126 * r + .7152 * g + .0722 * b; };
            const of = (q, p) => level(getComputedStyle(document.querySelector(q))[p]);
            const back = of("body", "backgroundColor");
            return ["fill"].map(p => of(".node text", p)).concat([of("#said", "color"), of("header p", "color")])
                .map(v => (Math.max(v, back) + .05) / (Math.min(v, back) + .05)); }""")
        assert min(ratio) >= 4.5, ratio


def test_odd_graphs(chromium: Browser, tmp_path: Path) -> None:
    """One event; nobody known; names that look like code."""
    odd = [document(comm="</script><img src=x onerror=alert(1)>", host="<b>h</b>")]
    for events in ([document()], [unknown()], odd):
        with open_page(chromium, page_of(tmp_path / "odd.html", events)) as page:
            assert page.locator(".node").count() == 2
            assert page.locator(".edge").count() == 1
            assert "Nobody" in page.inner_text("#suspects")
            assert page.locator("img, #details b").count() == 0
