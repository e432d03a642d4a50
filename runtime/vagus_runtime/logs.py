"""Log lines to stderr: for the journal with its priority, for a person with the time."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

# sd-daemon(3): "<N>" before a line is its syslog priority.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class PlainFormatter(logging.Formatter):
    """What a stranger sent may stand in a line: no control characters, for which journalctl shows no text at all."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


class JournalFormatter(PlainFormatter):
    """Every line with its priority: the journal takes each line of a message as a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def is_journal(environ: Mapping[str, str], fileno: int) -> bool:
    """Whether `fileno` leads to the journal. JOURNAL_STREAM alone does not tell: children whose stderr was redirected
    inherit it too (systemd.exec(5))."""
    try:
        stat = os.fstat(fileno)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def set_up(level: str, environ: Mapping[str, str]) -> None:
    """Sends log lines of `level` (debug, info, warning, error) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if is_journal(environ, sys.stderr.fileno()):
        handler.setFormatter(JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def set_level(level: str) -> None:
    """Another level from now on, as in `set_up`."""
    logging.getLogger().setLevel(level.upper())
