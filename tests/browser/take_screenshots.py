"""Pictures of the page for the README: `PYTHONPATH=tests python -m browser.take_screenshots` writes docs/images/."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

from browser import samples
from browser.board import CHROMIUM, FLAGS, Board, Site

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SHOTS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("fleet-light", 1360, 1215, "light"),
    ("fleet-dark", 1360, 1215, "dark"),
    ("fleet-phone", 390, 1400, "light"),
)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    board = Board()
    board.view = samples.bad_hour()
    site = Site(board, Path(tempfile.mkdtemp(prefix="vagus-pictures-")))
    site.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            for name, width, height, scheme in SHOTS:
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.emulate_media(reduced_motion="reduce")
                site.sign_in(page)
                page.locator("#ledger .history").wait_for()
                page.screenshot(path=IMAGES / f"{name}.png")
                page.close()
            browser.close()
    finally:
        site.stop()


if __name__ == "__main__":
    main()
