"""Pictures of the page: `PYTHONPATH=tests python -m browser.take_screenshots [PAGE…]` writes docs/images/.

Each page with 3 nodes in a bad hour and with 100, light and dark, at a desk and on a phone; the one for signing in
shows no fleet. pngquant (Debian's) makes them small. `--into DIRECTORY --size 3840x2160` takes others, to look at.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec.structs import replace
from playwright.sync_api import Page, ViewportSize

from browser import samples
from browser.board import Board, Site
from browser.chromium import chromium
from browser.incident_samples import brief, overlay_of, overlay_of_osaka, spike_of_last_week
from browser.samples import BERLIN, LISBON, OSAKA, VPS
from vagus_controller.config import PublicStatus, StatusGroup
from vagus_controller.views import FleetView, IncidentView, Severity

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LARGEST = 150_000
DESK, PHONE = ViewportSize(width=1360, height=1000), ViewportSize(width=390, height=844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def few() -> FleetView:
    """Three Pis, the overlay of one of them down."""
    fleet = samples.bad_hour()
    names = (BERLIN, LISBON, OSAKA)
    observer = replace(fleet.observer, reason="connected to the broker, and the fleet is heard")
    return replace(
        fleet,
        summary="The overlay of pi-osaka is down; its 2 pairs moved to the backup 41 s ago, and etcd kept its leader.",
        nodes=tuple(node for node in fleet.nodes if node.name in names),
        pairs=tuple(pair for pair in fleet.pairs if set(pair.nodes) <= set(names)),
        observer=observer,
        incidents=(replace(brief(overlay_of_osaka()), did="moved 2 pairs to backup"),),
    )


# Of the hundred, those whose overlay is down.
CUT = ("berlin-16", "lisbon-16", "osaka-16")


@cache
def many() -> FleetView:
    fleet = samples.large()
    return replace(fleet, incidents=tuple(map(brief, many_incidents(fleet))))


def many_incidents(fleet: FleetView) -> tuple[IncidentView, ...]:
    return tuple(
        overlay_of(node, tuple(pair.name for pair in fleet.pairs if node in pair.nodes), number)
        for number, node in enumerate(CUT, start=31)
    )


def furnish(board: Board, size: Literal[3, 100]) -> None:
    """What the board tells beside the fleet, of that fleet."""
    if size == 3:
        board.ledger_entries = [entry for entry in samples.ledger() if VPS not in entry.subject]
        board.event_entries = [entry for entry in samples.events() if VPS not in entry.subject]
        board.incident_views = [overlay_of_osaka(), spike_of_last_week()]
        board.plan_views = (samples.plan("backup", f"{BERLIN}--{LISBON}", f"{LISBON}--{OSAKA}"),)
        board.drill_views = (samples.drill(f"{BERLIN}--{LISBON}"),)
        return
    incidents = many_incidents(many())
    why = "the overlay is down from both ends and the backup is proven"
    board.ledger_entries, board.event_entries = [], []
    for number, link in enumerate(trouble.subject for one in incidents for trouble in one.troubles[:12]):
        pair = link.removesuffix("/overlay")
        moved = samples.entry(number, "failover", pair, why, "both ends applied generation 12")
        found = samples.event(number, link, "down: no probe gets through in either direction", Severity.CRITICAL)
        board.ledger_entries.insert(0, moved)
        board.event_entries.insert(0, found)
    board.incident_views = [*reversed(incidents), replace(spike_of_last_week(), title="load spike on quito-03")]
    board.plan_views = (samples.plan("backup", "austin-01--quito-02", "quito-02--tallinn-04"),)
    board.drill_views = (samples.drill("austin-01--quito-02"),)


STATUS = PublicStatus(
    title="Harbour",
    group=(
        StatusGroup(name="Website", sites=("lisbon",)),
        StatusGroup(name="Home automation", sites=("osaka",)),
        StatusGroup(name="Backups", sites=("berlin",)),
    ),
    uptime_days=90,
    incidents=True,
)


def open_sites(page: Page) -> None:
    page.get_by_role("button", name="berlin and berlin: critical").click()
    page.get_by_role("region", name="Nodes by nodes").wait_for()


def rehearse(page: Page) -> None:
    form = page.get_by_role("region", name="Move many pairs")
    form.get_by_label("Why").fill("a new router")
    form.get_by_role("button", name="Rehearse").click()
    form.get_by_text("nothing was moved").wait_for()


def count_uptime(page: Page) -> None:
    """It is counted from the first time on that somebody asks; the page is made anew every 5 s."""
    page.wait_for_timeout(5500)
    page.reload()


def nothing(page: Page) -> None:
    pass


class Shot(NamedTuple):
    """`size`: nodes; `settled`: what stands there when the page is drawn; `act`: what is done first."""

    name: str
    path: str
    size: Literal[3, 100]
    settled: str
    act: Callable[[Page], None] = nothing


SHOTS = (
    Shot("fleet", "/", 3, "#ledger .history"),
    Shot("fleet-100", "/", 100, "#ledger .history", open_sites),
    Shot("pair", f"/pairs/{BERLIN}--{OSAKA}", 3, "#charts canvas"),
    Shot("pair-100", "/pairs/austin-00--berlin-16", 100, "#charts canvas"),
    Shot("failover", "/failover", 3, "#ledger .history", rehearse),
    Shot("failover-100", "/failover", 100, "#assignments tbody"),
    Shot("events", "/events", 3, "#events li"),
    Shot("events-100", "/events", 100, "#events li"),
    Shot("node", f"/nodes/{OSAKA}", 3, "#charts canvas"),
    Shot("node-100", "/nodes/berlin-16", 100, "#charts canvas"),
    Shot("incidents", "/incidents", 3, "#open li"),
    Shot("incidents-100", "/incidents", 100, "#open li"),
    Shot("incident", "/incidents/12", 3, "#cause li"),
    Shot("incident-100", "/incidents/31", 100, "#cause li"),
    Shot("account", "/account", 3, "#user-list tbody tr"),
    Shot("account-100", "/account", 100, "#user-list tbody tr"),
    Shot("status", "/status", 3, "h1", count_uptime),
    Shot("status-100", "/status", 100, "h1", count_uptime),
    Shot("login", "/login", 3, "h1"),
)


def take(site: Site, shots: tuple[Shot, ...], into: Path, sizes: dict[str, ViewportSize]) -> list[Path]:
    """`sizes`: by what they add to a picture's name."""
    files = []
    with chromium() as browser:
        for scheme in SCHEMES:
            context = browser.new_context(viewport=DESK, color_scheme=scheme, reduced_motion="reduce")
            context.set_default_timeout(60_000)
            page = context.new_page()
            site.sign_in(page)
            for shot in shots:
                furnish(site.board, shot.size)
                site.tell("fleet", few() if shot.size == 3 else many())
                for suffix, viewport in sizes.items():
                    page.set_viewport_size(viewport)
                    page.goto(site.url + shot.path)
                    page.locator(shot.settled).first.wait_for()
                    shot.act(page)
                    page.evaluate("scrollTo(0, 0)")
                    page.wait_for_timeout(1200)
                    file = into / f"{shot.name}-{scheme}{suffix}.png"
                    page.screenshot(path=file)
                    files.append(file)
            context.close()
    return files


def main() -> None:
    if shutil.which("pngquant") is None:
        raise SystemExit("pngquant makes the pictures small: apt-get install pngquant")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="DIRECTORY")
    parser.add_argument("--size", metavar="WIDTHxHEIGHT", help="one size instead of desk and phone")
    options = parser.parse_args()
    shots = tuple(shot for shot in SHOTS if not options.pages or shot.name in options.pages)
    if not shots:
        parser.error(f"no such page; there are: {', '.join(shot.name for shot in SHOTS)}")
    sizes = {"": DESK, "-phone": PHONE}
    if options.size:
        width, _, height = options.size.partition("x")
        sizes = {"": ViewportSize(width=int(width), height=int(height))}
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vagus-pictures-") as directory:
        site = Site(Board(), Path(directory))
        site.http = {"public_status": STATUS}
        site.start()
        try:
            files = take(site, shots, options.into, sizes)
        finally:
            site.stop()
    subprocess.run(["pngquant", "--force", "--ext", ".png", "--speed", "1", "128", *map(str, files)], check=True)
    large = [file.name for file in files if options.into == IMAGES and file.stat().st_size > LARGEST]
    if large:
        raise SystemExit(f"larger than {LARGEST} bytes: {', '.join(large)}")


if __name__ == "__main__":
    main()
