"""Who may come in, in virtual time: guesses are slow, sessions end, nobody is locked out, no change leaves it without
an operator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_controller.accounts import book as books
from vagus_controller.accounts.book import Book, Role, Token, User
from vagus_controller.accounts.sessions import MAX_EACH, MAX_SESSIONS, Session, Sessions
from vagus_controller.accounts.throttle import ACCOUNT, ADDRESS, DEVICE, Buckets, Failures, Throttle
from vagus_controller.views import Refused

HOUR, DAY = 3600.0, 86_400.0


def user(name: str, role: Role = "operator", serial: str = "1") -> User:
    return User(name=name, role=role, password="$argon2id$…", serial=serial, made_at=0)


def token(name: str, owner: str = "ines", role: Role = "viewer", ends: float | None = None) -> Token:
    return Token(
        id=f"{owner}-{name}",
        name=name,
        role=role,
        owner=owner,
        origin="password",
        digest="",
        made_at=0,
        expires_at=ends,
    )


def session(name: str = "ines", at: float = 0.0) -> Session:
    return Session(user=name, origin="password", under="1", role="operator", made_at=at, used_at=at)


# --- guessing ------------------------------------------------------------------------------------------------------


def guesses(throttle: Throttle, seconds: int, account: str = "ines", address: str = "a", device: str = "") -> int:
    """How many wrong passwords fit into so many seconds, one tried each second."""
    return sum(throttle.begin(account, address, device, float(now)) == 0 for now in range(seconds))


def test_guesses_from_one_address_are_slow() -> None:
    burst, refill_s = ADDRESS
    assert guesses(Throttle(), 3600) == pytest.approx(burst + 3600 / refill_s, abs=1)


def test_guesses_of_one_account_from_many_addresses_are_slow() -> None:
    throttle, burst, refill_s = Throttle(), *ACCOUNT
    got = sum(throttle.begin("ines", f"address {now % 500}", "", float(now)) == 0 for now in range(3600))
    assert got == pytest.approx(burst + 3600 / refill_s, abs=1)


def test_one_address_is_slow_whichever_account_it_tries() -> None:
    throttle, burst, refill_s = Throttle(), *ADDRESS
    got = sum(throttle.begin(f"user {now}", "a", "", float(now)) == 0 for now in range(3600))
    assert got == pytest.approx(burst + 3600 / refill_s, abs=1)


def test_an_attack_does_not_keep_out_the_browser_that_was_here_before() -> None:
    throttle = Throttle()
    for now in range(1000):
        throttle.begin("ines", "the office", "", float(now))
        throttle.begin("ines", f"address {now}", "", float(now))
    assert throttle.begin("ines", "elsewhere", "", 1000.0) > 0
    assert throttle.begin("ines", "the office", "her browser", 1000.0) == 0


def test_a_stolen_device_mark_helps_little() -> None:
    burst, refill_s = DEVICE
    assert guesses(Throttle(), 3600, device="hers") == pytest.approx(burst + 3600 / refill_s, abs=1)


def test_who_knows_the_password_is_never_slowed() -> None:
    throttle = Throttle()
    for now in range(1000):
        assert throttle.begin("ines", "a", "", now / 10) == 0
        throttle.succeeded("ines", "a", "", now / 10)


def test_the_own_password_pays_for_no_guess_of_another() -> None:
    """An attacker with an account cannot wash the address clean by signing in between."""
    throttle, tried = Throttle(), 0
    for now in range(3600):
        tried += throttle.begin("ines", "a", "", float(now)) == 0
        if throttle.begin("mallory", "a", "", float(now)) == 0:
            throttle.succeeded("mallory", "a", "", float(now))
    assert tried == pytest.approx(ADDRESS[0] + 3600 / ADDRESS[1], abs=1)


def test_attempts_count_from_their_beginning() -> None:
    """A thousand at once, none of them answered yet."""
    throttle = Throttle()
    assert sum(throttle.begin("ines", "a", "", 0.0) == 0 for _ in range(1000)) == ADDRESS[0]


def test_the_wait_that_is_told_is_enough_and_not_too_long() -> None:
    throttle = Throttle()
    while (wait := throttle.begin("ines", "a", "", 0.0)) == 0:
        pass
    assert throttle.begin("ines", "a", "", wait - 0.01) > 0
    assert throttle.begin("ines", "a", "", wait + 0.01) == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60))
def test_a_bucket_never_holds_more_than_it_may(steps: list[tuple[float, bool]]) -> None:
    bucket, now, allowed = Buckets(3, 10), 0.0, 0
    for passed, give_back in steps:
        now += passed
        if bucket.wait_s("k", now) == 0:
            bucket.take("k", now)
            allowed += 1
            if give_back:
                bucket.give_back("k", now)
                allowed -= 1
    assert allowed <= 3 + now / 10 + 1e-6


def test_buckets_are_bounded() -> None:
    bucket = Buckets(3, 1e9)
    for number in range(30_000):
        bucket.take(str(number), 0.0)
    assert len(bucket._taken) == 10_000
    assert bucket.wait_s("29999", 0.0) == 0


def test_failures_fill_no_ledger() -> None:
    failures = Failures()
    lines = [line for now in range(600) if (line := failures.add("ines", "10.0.0.5", float(now)))]
    assert lines[0] == "failed as ines from 10.0.0.5"
    assert lines[1] == "60 failed since the last line, the last as ines from 10.0.0.5"
    assert len(lines) == 10


# --- sessions ------------------------------------------------------------------------------------------------------


def test_a_session_ends_when_it_is_idle_and_in_any_case() -> None:
    sessions = Sessions(DAY, 7 * DAY)
    sessions.begin("idle", session())
    sessions.begin("used", session())
    at, alive = 0.0, 0.0
    while sessions.find("used", at) is not None:
        alive = at
        at += HOUR
    assert alive == 7 * DAY
    assert sessions.find("idle", DAY + 1) is None
    # Ended is ended, also if the clock goes back.
    assert sessions.find("used", HOUR) is None


def test_a_clock_that_went_back_ends_nothing() -> None:
    sessions = Sessions(DAY, 7 * DAY)
    sessions.begin("a", session(at=1e9))
    assert sessions.find("a", 1000.0) is not None
    assert sessions.find("a", 1e9 + HOUR) is not None


def test_expired_sessions_are_swept() -> None:
    sessions = Sessions(DAY, 7 * DAY)
    sessions.begin("old", session())
    sessions.begin("new", session(at=DAY))
    sessions.end_expired(DAY + HOUR)
    assert set(sessions.notes.sessions) == {"new"}


def test_one_person_pushes_nobody_out() -> None:
    sessions = Sessions(DAY, 7 * DAY)
    sessions.begin("hers", session("ines"))
    sessions.know_device("her browser", "ines", 0.0)
    for number in range(3 * MAX_SESSIONS):
        sessions.begin(f"his {number}", session("mallory", 1.0 + number))
        sessions.know_device(f"his {number}", "mallory", 1.0 + number)
    assert sessions.find("hers", HOUR) is not None
    assert sessions.is_device_of("her browser", "ines")
    assert not sessions.is_device_of("her browser", "mallory")
    assert sum(each.user == "mallory" for each in sessions.notes.sessions.values()) == MAX_EACH
    assert f"his {3 * MAX_SESSIONS - 1}" in sessions.notes.sessions


def test_a_use_costs_no_write_each() -> None:
    sessions = Sessions(DAY, 7 * DAY)
    sessions.begin("a", session())
    sessions.changed = False
    sessions.find("a", 30.0)
    assert not sessions.changed
    sessions.find("a", 61.0)
    assert sessions.changed


# --- the book ------------------------------------------------------------------------------------------------------


def test_users_are_made_changed_and_removed_with_their_tokens() -> None:
    book = books.add_user(Book(), user("ines"))
    book = books.add_user(book, user("bob", "viewer"))
    book = books.add_token(book, token("ci", "bob"), 0)
    book = books.add_token(book, token("ci", "ines"), 0)
    assert [each.name for each in book.users] == ["bob", "ines"]
    changed = books.change_user(book, "bob", role="operator", password="$new", serial="2")
    assert changed.known("bob") == User(name="bob", role="operator", password="$new", serial="2", made_at=0)
    assert books.changes(book, changed) == [
        ("bob", "is operator now, was viewer"),
        ("bob", "has a new password; its sessions end"),
    ]
    left = books.remove_user(book, "bob")
    assert [each.owner for each in left.tokens] == ["ines"]
    assert books.changes(book, left) == [("bob", "removed, with its sessions and tokens")]
    assert books.changes(left, book) == [("bob", "made, as viewer")]


def test_the_last_operator_stays() -> None:
    book = books.add_user(books.add_user(Book(), user("ines")), user("bob", "viewer"))
    with pytest.raises(Refused, match="ines is the last operator"):
        books.remove_user(book, "ines")
    with pytest.raises(Refused, match="make another one first"):
        books.change_user(book, "ines", role="viewer")
    assert books.remove_user(book, "bob").known("ines")


@pytest.mark.parametrize("name", ["", "Ines", "-", "1a", "a b", "ines@example.org", "a" * 33, "ïnes", "a\n", "../a"])
def test_bad_names_of_users(name: str) -> None:
    with pytest.raises(Refused, match="a user's name is"):
        books.add_user(Book(), user(name))


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short", "10 to 200 characters"),
        ("x" * 201, "10 to 200 characters"),
        ("ababababababab", "too easy"),
        ("Operator-Two", ""),
        ("operator-ines", "too easy"),
        ("correct horse", ""),
    ],
)
def test_passwords(password: str, words: str) -> None:
    found = books.password_trouble(password, "operator-ines")
    assert words in found if words else found == ""


def test_names_are_there_once() -> None:
    book = books.add_token(books.add_user(Book(), user("ines")), token("ci", ends=100), 0)
    with pytest.raises(Refused, match="there is a user ines already"):
        books.add_user(book, user("ines"))
    with pytest.raises(Refused, match="you have a token ci already"):
        books.add_token(book, token("ci"), 99)
    # Its time is over.
    assert len(books.add_token(book, token("ci"), 100).tokens) == 1
    with pytest.raises(KeyError):
        books.revoke_token(book, "another")


def test_a_token_may_no_more_than_its_owner() -> None:
    assert books.least("operator", "viewer") == books.least("viewer", "operator") == "viewer"
    assert books.least("operator", "operator") == "operator"


def test_users_and_tokens_are_bounded() -> None:
    book = Book(users=tuple(user(f"u{number}") for number in range(books.MAX_USERS)))
    with pytest.raises(Refused, match="remove some"):
        books.add_user(book, user("one-more"))
    book = Book(tokens=tuple(token(f"t{number}") for number in range(books.MAX_TOKENS)))
    with pytest.raises(Refused, match="revoke some"):
        books.add_token(book, token("one more"), 0)
