"""Charts on real SQLite files, with a wall clock of the test's own."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.fleet_builders import config, link, observed, report, system
from unit.test_store import Place, fill
from vagus_controller import archive as archive_module
from vagus_controller.archive import SCHEMA_VERSION, Archive, beside
from vagus_controller.config import History
from vagus_controller.core.fleet import Fleet
from vagus_protocol.codec import encode
from vagus_runtime.settings import ConfigError

# Two hours before six of them are over.
START = 1_700_000_000 // 21600 * 21600 + 4 * 3600


@pytest.fixture(autouse=True)
def _breathless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_BREATH_S", 0.0)


class Site:
    """A fleet whose nodes report every second of a clock that only the test moves, and its archive."""

    def __init__(self, place: Place, *nodes: str, **settings: float) -> None:
        self.place = place
        self.nodes = nodes or ("a", "b")
        self.settings = History(**settings)
        self.wall = float(START - 10)
        self.now = 1000.0
        self.load = 1.0
        self.path = "overlay"
        self.seq = 0
        self.open()
        # Every node has been heard when its turn comes.
        self.run(9)

    def open(self) -> None:
        self.fleet = Fleet(config())
        self.archive = Archive(self.place.url, self.settings)
        self.archive._open()

    def say(self, node: str, **changes: Any) -> None:
        self.seq += 1
        peer = "b" if node == "a" else "a"
        links = (link(peer, "overlay", rtt_s=0.01), link(peer, "backup", rtt_s=0.02))
        said = report(node, self.seq, system=system(cores=1, load1=self.load), links=links, **changes)
        self.fleet.on_report(said, self.now, encode(said))
        self.fleet.on_observed(observed(node, paths={peer: self.path}), self.now)

    def run(self, seconds: int, *, every: int = 1) -> None:
        """So long, with the writer looking once a minute. The first second of all is START."""
        for _ in range(seconds):
            self.now += 1
            self.wall += 1
            if int(self.now) % every == 0:
                for node in self.nodes:
                    self.say(node)
            self.archive.take(self.fleet.nodes, self.now, self.wall)
            if int(self.wall) % 60 == 1:
                self.archive.work()
        self.archive.work()

    def restart(self, *, crash: bool = False) -> None:
        if not crash:
            self.archive.work(all_of_it=True)
        assert self.archive._engine is not None
        self.archive._engine.dispose()
        self.open()

    def loads(self, start: float, end: float, step: int, node: str = "a") -> list[float | None]:
        found = self.archive.node_history(node, int(start), int(end), step)
        loads = dict(zip(found.at, self._column(found), strict=True))
        return [loads.get(at) for at in range(int(start), int(end), step)]

    @staticmethod
    def _column(found: Any) -> list[float | None]:
        columns = [column.mean for column in found.columns if column.metric == "load"]
        return columns[0] if columns else [None] * len(found.at)

    def rows(self, level: str) -> int:
        return int(self.place.ask(f"select count(*) from history_{level}")[0][0])


class Charts(Place):
    """Beside the store's file, where another program looks."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.with_name("vagus-history.db"))
        self.url = f"sqlite:///{file}"

    def size(self) -> int:
        return self.file.stat().st_size


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Charts(tmp_path / "vagus.db")


@pytest.fixture
def site(place: Place) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(*nodes: str, **settings: float) -> Site:
        sites.append(Site(place, *nodes, **settings))
        return sites[-1]

    yield make
    for each in sites:
        each.archive.stop()


Make = Callable[..., Site]


def test_one_figure_in_ten_seconds_at_once_and_on_disk(site: Make) -> None:
    here = site("a")
    here.run(60)
    assert here.loads(START, START + 60, 10) == [1.0] * 6, "nothing is on disk yet"
    assert here.rows("raw") == 0
    here.run(10)
    assert here.rows("raw") == 1
    assert here.loads(START, START + 70, 10) == [1.0] * 7, "a minute on disk, the next in memory"


def test_a_node_that_reports_seldom_is_not_taken_twice(site: Make) -> None:
    here = site()
    here.run(120, every=30)
    taken = [each for each in here.loads(START, START + 120, 10) if each is not None]
    assert len(taken) == 5, "four, and the one from before"


def test_minutes_and_hours_are_made_as_they_end(site: Make) -> None:
    here = site("a")
    for value in (1.0, 3.0):
        here.load = value
        here.run(1800)
    assert here.rows("minute") == 5
    assert here.loads(START, START + 3600, 3600) == [2.0], "the hour that goes on, of what is there"
    here.run(3 * 3600 + 130)
    assert here.rows("minute") == 24
    assert here.rows("hour") == 1, "of six hours"
    assert here.loads(START, START + 4 * 3600, 3600) == [2.0, 3.0, 3.0, 3.0]
    assert here.loads(START + 60, START + 3660, 60) == [1.0] * 29 + [3.0] * 31
    hour = here.archive.node_history("a", START, START + 3600, 3600)
    column = next(each for each in hour.columns if each.metric == "load")
    assert (column.low, column.high) == ([1.0], [3.0])


def test_every_step_shows_the_newest_figures(site: Make) -> None:
    here = site()
    here.run(3600 + 700)
    now = int(here.wall)
    for step in (10, 60, 120, 3600):
        start = (START // step) * step
        shown = here.loads(start, now, step)
        assert set(shown) == {1.0}, f"at {step} s"


@pytest.mark.parametrize("crash", [False, True])
def test_a_restart_forgets_nothing_but_the_last_minute_of_a_crash(site: Make, crash: bool) -> None:
    here = site()
    here.run(1750)
    here.restart(crash=crash)
    before = here.loads(START, here.wall, 60)
    assert before[:29] == [1.0] * 29
    assert before[29:] == ([None] if crash else [1.0])
    here.load = 2.0
    here.run(3600)
    hours = here.loads(START, START + 3600, 3600)
    assert hours == [pytest.approx((1750 * 1.0 + 1850 * 2.0) / 3600, abs=0.02)]


def test_days_of_standstill_are_a_gap(site: Make) -> None:
    here = site()
    here.run(1750)
    here.restart()
    here.wall += 3 * 86400
    here.run(3600)
    shown = here.loads(START, here.wall, 3600)
    assert shown[0] == 1.0
    assert set(shown[1:72]) == {None}
    assert shown[72] == 1.0


def test_a_clock_that_is_set_back_overwrites_nothing_and_goes_on(site: Make) -> None:
    here = site()
    here.run(7200)
    here.load = 5.0
    here.wall -= 3600
    here.run(1800)
    again = START + 3600
    assert here.loads(START, START + 3600, 3600) == [1.0]
    for step in (10, 60):
        twice = here.archive.node_history("a", again + 60, again + 60 + step, step)
        load = next(column for column in twice.columns if column.metric == "load")
        assert (load.low, load.mean, load.high) == ([1.0], [3.0], [5.0]), "both are shown"
    here.run(3600)
    assert here.loads(START + 7260, START + 8940, 60) == [5.0] * 28, "and after the hour that came twice, all is new"


def test_a_clock_that_was_years_ahead_spoils_neither_what_was_nor_what_comes(site: Make) -> None:
    here = site()
    here.run(3600)
    here.wall += 70 * 365 * 86400
    here.run(1800)
    assert here.loads(START, START + 3600, 3600) == [1.0], "nothing is thrown away as too old at once"
    here.wall = START + 5400.0
    here.load = 2.0
    here.run(3700)
    assert here.loads(START, START + 10800, 3600) == [1.0, 2.0, 2.0]
    here.wall = 5.0
    here.run(700)
    assert here.loads(START, START + 3600, 3600) == [1.0]


def test_old_rows_go_by_the_age_of_their_level(site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_PRUNE_EVERY_S", 0.0)
    here = site("a", raw_hours=0.5, minute_days=0.25, hour_days=1.0)
    here.run(9 * 3600, every=5)
    assert 29 <= here.rows("raw") <= 32
    assert 35 <= here.rows("minute") <= 37
    assert here.rows("hour") == 2
    assert here.loads(START, START + 9 * 3600, 3600) == [1.0] * 9
    here.restart()
    here.wall += 20 * 3600
    here.run(1200)
    assert here.rows("hour") == 1, "the six hours in which it stopped"


def test_the_oldest_go_when_there_are_too_many_bytes(site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_PRUNE_EVERY_S", 0.0)
    here = site("a", "b", max_mb=10.0)
    here.archive._most_bytes = 130_000
    here.run(4 * 3600, every=5)
    assert here.archive._used_bytes() <= 130_000
    assert here.place.size() < 300_000
    recent = here.loads(here.wall - 600 - here.wall % 60, here.wall - here.wall % 60, 60)
    assert recent == [1.0] * 10, "what is new is kept"


def test_a_pair_over_time(site: Make) -> None:
    here = site()
    here.run(1800)
    here.path = "backup"
    here.run(1900)
    found = here.archive.pair_history("a", "b", START, START + 3600, 3600)
    assert found.at == [START]
    for end in found.ends:
        assert end.shares.direct == pytest.approx(0.5, abs=0.01)
        assert end.shares.backup == pytest.approx(0.5, abs=0.01)
        assert [each.path for each in end.paths] == ["backup", "overlay"]
        assert end.paths[1].rtt_s is not None
        assert end.paths[1].rtt_s.mean == [0.01]


def test_sparklines_come_back_after_a_restart(site: Make) -> None:
    here = site()
    here.run(3600)
    before = here.archive.sparklines()
    assert before.nodes["a"] == [1.0] * 30
    assert before.end == START + 3600
    here.restart()
    here.run(60)
    after = here.archive.sparklines().nodes["a"]
    assert len([each for each in after if each == 1.0]) >= 25
    assert after[-1] == 1.0


def test_the_finest_step_that_is_kept(site: Make) -> None:
    here = site()
    here.run(1)
    now = int(here.wall)
    best = here.archive.best_step
    assert best(now - 3600, now) == 10
    assert best(now - 86400, now) == 60
    assert best(now - 7 * 86400, now) == 3600
    assert best(now - 30 * 86400, now) == 3600
    assert best(now - 6 * 86400, now - 6 * 86400 + 3600) == 60, "an hour of last week: its minutes"
    assert best(now - 60 * 86400, now - 60 * 86400 + 3600) == 3600
    assert best(0, now) % 3600 == 0
    assert now / best(0, now) <= 1500


# --- a disk that does not work ----------------------------------------------------------------------------------------


def test_a_full_disk_is_told_survived_and_made_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "vagus-test", disk], check=True, timeout=10)
    try:
        here = Site(Charts(disk / "vagus.db"))
        here.run(130)
        assert here.archive.problem == ""
        fill(disk / "ballast")
        with caplog.at_level(logging.ERROR, "vagus.history"):
            here.run(300)
        assert "make room on its disk" in here.archive.problem
        assert len(caplog.records) == 1, "told once"
        assert here.loads(START + 60, START + 420, 60) == [1.0] * 6
        (disk / "ballast").unlink()
        here.run(61)
        assert here.archive.problem == ""
        here.restart(crash=True)
        assert here.loads(START + 60, START + 420, 60) == [1.0] * 6
        here.archive.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True, timeout=10)


def test_a_disk_that_never_works_takes_bounded_memory(site: Make, tmp_path: Path) -> None:
    here = site()
    database = here.archive._database
    database._url = database._url.set(database=str(tmp_path / "missing/vagus-history.db"))
    here.archive._problem = "broken"
    here.run(3600)
    assert "make its directory" in here.archive.problem
    assert all(len(samples) == archive_module._MOST_WAITING for samples in here.archive._waiting.values())
    assert here.loads(here.wall - 600, here.wall, 60)[5] == 1.0


def test_a_damaged_row_is_left_out(site: Make, caplog: pytest.LogCaptureFixture) -> None:
    here = site("a")
    here.run(250)
    here.place.ask(
        "update history_raw set data = substr(data, 1, 3) where id = (select min(id) from history_raw) returning id"
    )
    with caplog.at_level(logging.WARNING, "vagus.history"):
        shown = here.loads(START, START + 180, 60)
    assert shown == [None, 1.0, 1.0]
    assert "damaged" in caplog.text


def test_a_file_of_a_newer_version_is_refused(site: Make) -> None:
    here = site()
    here.archive.stop()
    here.place.ask(f"update history_schema set version = {SCHEMA_VERSION + 1} returning version")
    with pytest.raises(ConfigError, match="newer vagus-controller"):
        Archive(here.place.url, History()).start()


def test_where_it_is_kept() -> None:
    assert beside("sqlite:////var/lib/vagus-controller/vagus.db").database == (
        "/var/lib/vagus-controller/vagus-history.db"
    )
    assert beside("postgresql://u@h/vagus").render_as_string() == "postgresql://u@h/vagus"


def test_the_writer_thread_writes_what_waits_at_the_end(place: Place) -> None:
    here = Site(place)
    here.run(5)
    here.say("a")
    here.archive.start()
    for _ in range(20):
        here.wall += 1
        here.now += 1
        here.say("a")
        here.archive.take(here.fleet.nodes, here.now, here.wall)
    here.archive.stop()
    assert here.rows("raw") >= 1
