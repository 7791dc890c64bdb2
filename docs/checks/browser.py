"""Each page in a browser: wide and narrow, light and dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Error, Page, Response, sync_playwright

__all__ = ["look_at"]

Scheme = Literal["light", "dark"]

WIDTHS = {"wide": 1400, "narrow": 390}
HEIGHT = 1600  # of a screenshot: what is below is not in it
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
FOUND_BY_SEARCH = (
    "disable", "pretrained", "weight decay", "Jupyter", "Lightning", "FSDP", "summary", "ONNX",
    "spectral norm",
)  # fmt: skip

READY = "() => window.MathJax?.startup?.promise"
FAULTS = """async () => {
    const frame = () => new Promise(requestAnimationFrame);
    await frame(); await frame();  // tables take their form after the window has its size
    const page = document.scrollingElement, found = [];
    if (page.scrollWidth > window.innerWidth)
        found.push(`the page is ${page.scrollWidth} pixels wide`);
    const right = element => element.getBoundingClientRect().right;
    for (const table of document.querySelectorAll("article table")) {
        const lost = Math.round(right(table) - right(table.parentElement));
        if (lost > 1)
            found.push(`${lost} pixels of a table are cut: ${table.innerText.slice(0, 60)}`);
    }
    for (const formula of document.querySelectorAll("[data-mjx-error]"))
        found.push(`a formula is wrong: ${formula.dataset.mjxError}`);
    return found;
}"""


def look_at(site: Path, chromium: str, screenshots: Path, only: Sequence[str] = ()) -> list[str]:
    """Take screenshots of all pages, or of some, and give a line for each problem."""
    screenshots.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        heard: list[str] = []
        listen(page, heard)
        for name in only or pages_of(site):
            page.goto(f"{address}/{name}")
            page.evaluate(READY)
            heard += list(faults_of_layout(page, name, screenshots))
            problems += [f"{name}: {line}" for line in dict.fromkeys(heard)]
            heard.clear()
        problems += searched_in_vain(page, address)
        browser.close()
    return problems


def pages_of(site: Path) -> list[str]:
    """All pages but those of source code, which have one layout."""
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return [name for name in names if not name.startswith("_modules/paramdesc/")]


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site on this machine alone, for as long as it is looked at."""
    server = Server(("127.0.0.1", 0), partial(Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Server(ThreadingHTTPServer):
    """The browser may leave a page before it has all of it."""

    def handle_error(self, *arguments: Any) -> None:
        pass


class Silent(SimpleHTTPRequestHandler):
    """Serves without a line for each request."""

    def log_message(self, *arguments: Any) -> None:
        pass


def listen(page: Page, heard: list[str]) -> None:
    page.on("console", lambda said: heard.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "response", lambda got: heard.append(f"{got.status}: {got.url}") if failed(got) else None
    )


def failed(response: Response) -> bool:
    return response.status >= 400


def faults_of_layout(page: Page, name: str, screenshots: Path) -> Iterator[str]:
    """What is too wide, with pictures on the way."""
    for width, pixels in WIDTHS.items():
        page.set_viewport_size({"width": pixels, "height": HEIGHT})
        for line in page.evaluate(FAULTS):
            yield f"{width}: {line}"
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            picture = screenshots / f"{name.replace('/', '-')[:-5]}-{width}-{scheme}.jpg"
            page.screenshot(path=picture, type="jpeg", quality=50)


def searched_in_vain(page: Page, address: str) -> list[str]:
    problems = []
    for words in FOUND_BY_SEARCH:
        page.goto(f"{address}/search.html?q={words.replace(' ', '+')}")
        try:
            page.wait_for_selector("#search-results li", timeout=5000)
        except Error:
            problems.append(f"search.html: nothing is found for {words!r}")
    return problems
