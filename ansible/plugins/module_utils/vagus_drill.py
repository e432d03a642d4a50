"""What came of a drill, in words. Pure: a drill is what GET /drills answers."""

from __future__ import annotations

from typing import Any


def told(drill: dict[str, Any]) -> list[str]:
    """A line for each pair."""
    return [f"{each['pair']}: {_words(each)}" for each in drill["pairs"]]


def failure(drill: dict[str, Any]) -> str:
    """Why the drill counts as failed; "" when every pair that it took went out and back."""
    if drill["state"] == "stopped":
        return f"the drill was {drill['outcome']}"
    bad = told({"pairs": [each for each in drill["pairs"] if each["state"] not in ("ok", "skipped")]})
    if bad:
        return "the drill failed: " + "; ".join(bad)
    if not any(each["state"] == "ok" for each in drill["pairs"]):
        return "nothing was drilled: " + "; ".join(told(drill))
    return ""


def _words(each: dict[str, Any]) -> str:
    if each["state"] != "ok":
        return f"{each['state']}: {each['reason']}"
    return f"by {each['path']} and back; out {_gap(each['gap_s'])}, back {_gap(each['gap_back_s'])}"


def _gap(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{seconds * 1000:.0f} ms" if seconds else "below 20 ms"
