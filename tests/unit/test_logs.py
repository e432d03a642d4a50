"""Log lines: with priorities for the journal, with the time for a person."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from vagus_runtime.logs import JournalFormatter, PlainFormatter, is_journal


def record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("vagus", level, __file__, 1, text, None, None)


def test_every_line_carries_its_priority() -> None:
    formatter = JournalFormatter("%(message)s")
    assert formatter.format(record(logging.WARNING, "one\ntwo")) == "<4>one\n<4>two"
    assert formatter.format(record(logging.INFO, "")) == "<6>"
    assert [formatter.format(record(level, "x"))[:3] for level in (10, 20, 30, 40, 50)] == [
        "<7>",
        "<6>",
        "<4>",
        "<3>",
        "<2>",
    ]


@pytest.mark.parametrize("formatter", [PlainFormatter("%(message)s"), JournalFormatter("%(message)s")])
def test_what_a_stranger_sent_controls_no_terminal_and_is_a_text_to_the_journal(formatter: logging.Formatter) -> None:
    told = formatter.format(record(logging.WARNING, "pi-1 says: \x1b[2J\x00\x9b31m\u202e\tZürich ⇄ Ōsaka"))
    assert told.removeprefix("<4>") == "pi-1 says: \ufffd[2J\ufffd\ufffd31m\ufffd\tZürich ⇄ Ōsaka"


def test_only_the_journals_own_stream_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        stat = os.fstat(stream.fileno())
        assert is_journal({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}, stream.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"}, stream.fileno())
        assert not is_journal({}, stream.fileno())
    assert not is_journal({"JOURNAL_STREAM": "1:1"}, -1)
