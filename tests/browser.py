"""Self-contained pages in a real browser: Debian's headless Chromium, driven by playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

CHROMIUM = ("chromium-headless-shell", "chromium")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    executable = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    assert executable, f"none of {', '.join(CHROMIUM)} is installed: make setup-test"
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def open_page(chromium: Browser, html: Path, width: int = 1400, height: int = 900, **context: Any) -> Iterator[Page]:
    """The page as a person sees it who has no other open. Ends in an AssertionError if it asked for anything but
    itself, or complained.

    `context` goes to playwright's new_context(), for example color_scheme="dark".
    """
    asked: list[str] = []
    complaints: list[str] = []
    own = html.resolve().as_uri()

    def answer(route: Route) -> None:
        if route.request.url.partition("#")[0] == own:
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    with chromium.new_context(viewport={"width": width, "height": height}, **context) as person:
        page = person.new_page()
        page.set_default_timeout(20_000)
        page.route("**/*", answer)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(own)
        yield page
    assert not asked, f"the page is not self-contained: {asked}"
    assert not complaints, complaints
