from hypothesis import given
from hypothesis import strategies as st

from vagus_agent.core.backlog import Backlog
from vagus_protocol.messages import Event, EventKind


def event(seq: int, age_s: float = 0.0) -> Event:
    return Event(v=1, node="n", session="s", seq=seq, kind=EventKind.LINK, text="t", age_s=age_s)


def send_all(backlog: Backlog, now: float, first_number: int = 1) -> list[int]:
    """The seq of everything that the backlog lets out now, sent under rising numbers."""
    seqs: list[int] = []
    while (next_event := backlog.peek(now)) is not None:
        backlog.sent(first_number + len(seqs))
        seqs.append(next_event.seq)
    return seqs


def test_an_event_that_waited_carries_its_age() -> None:
    backlog = Backlog(limit=10)
    backlog.add(100.0, event(1))
    backlog.add(103.5, event(2, age_s=1.0))
    assert backlog.oldest_s(104.0) == 4.0
    first = backlog.peek(104.0)
    assert first is not None
    assert (first.seq, first.age_s) == (1, 4.0)
    backlog.sent(7)
    second = backlog.peek(104.0)
    assert second is not None
    assert (second.seq, second.age_s) == (2, 1.5)


def test_the_oldest_goes_first_when_there_are_too_many_and_is_counted() -> None:
    backlog = Backlog(limit=3)
    for seq in range(5):
        backlog.add(0.0, event(seq))
    assert backlog.dropped == 2
    assert send_all(backlog, 0.0) == [2, 3, 4]


def test_only_a_window_is_unconfirmed_and_a_confirmation_opens_it() -> None:
    backlog = Backlog(limit=100, window=2)
    for seq in range(4):
        backlog.add(0.0, event(seq))
    assert send_all(backlog, 0.0) == [0, 1]
    backlog.acked(1)
    backlog.acked(999)
    assert send_all(backlog, 0.0, first_number=3) == [2]
    assert len(backlog) == 3


def test_what_was_not_confirmed_goes_again_in_order_with_its_whole_age() -> None:
    backlog = Backlog(limit=100, window=3)
    for seq in range(4):
        backlog.add(10.0, event(seq))
    assert send_all(backlog, 10.0) == [0, 1, 2]
    backlog.acked(2)
    backlog.requeue()
    again = backlog.peek(15.0)
    assert again is not None
    assert again.age_s == 5.0
    assert send_all(backlog, 15.0) == [0, 2, 3]


@given(st.lists(st.sampled_from(["add", "send", "ack", "lose"]), max_size=200), st.integers(1, 8), st.integers(1, 4))
def test_every_event_is_confirmed_waiting_or_counted_as_dropped(steps: list[str], limit: int, window: int) -> None:
    backlog, added, confirmed, number, flying = Backlog(limit, window), 0, 0, 0, list[int]()
    for step in steps:
        if step == "add":
            backlog.add(float(added), event(added))
            added += 1
        elif step == "send" and backlog.peek(float(added)) is not None:
            number += 1
            backlog.sent(number)
            flying.append(number)
        elif step == "ack" and flying:
            backlog.acked(flying.pop(0))
            confirmed += 1
        elif step == "lose":
            backlog.requeue()
            flying.clear()
        assert confirmed + len(backlog) + backlog.dropped == added
        assert len(backlog) <= limit + window
