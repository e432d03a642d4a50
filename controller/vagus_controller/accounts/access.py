"""Who may come in: what the web edge asks. Runs in the event loop; files and passwords in threads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct

from vagus_controller.accounts import book as books
from vagus_controller.accounts.book import Book, Origin, Role, Token, User, digest
from vagus_controller.accounts.files import SESSIONS, AccountsFile, read_notes, write
from vagus_controller.accounts.passwords import Passwords, hash_password, is_password, needs_rehash
from vagus_controller.accounts.sessions import Session, Sessions
from vagus_controller.accounts.throttle import Failures, Throttle
from vagus_controller.config import Http
from vagus_controller.views import Refused
from vagus_runtime.settings import ConfigError, read_secret

log = logging.getLogger("vagus.accounts")

_LOOK_EVERY_S: Final = 1.0
# When a session was used last: not worth a write each minute of an SD card's life.
_SAVE_EVERY_S: Final = 600.0
_RETRY_S: Final = 5.0
_CONSOLE: Final = "vagus-controller users"


class Identity(Struct, frozen=True, kw_only=True):
    """Who asks. `who`: for the ledger. `session`: the session's key, "" for a bearer."""

    name: str
    role: Role
    origin: Origin
    via: Literal["session", "token", "file"]
    who: str
    session: str = ""


class SignedIn(Struct, frozen=True, kw_only=True):
    """The secrets of a new session and of the device, for the browser's cookies."""

    session: str
    device: str = ""


class Wrong(Exception):
    """No such user, or not the password."""


class TooMany(Exception):
    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, round(wait_s + 0.5))
        super().__init__(f"too many wrong passwords: try again in {self.wait_s} s")


class Unsaved(Exception):
    """A change that could not be written, and so did not happen."""


class Audit(Protocol):
    """Writes a line of the ledger."""

    def __call__(self, who: str, action: str, subject: str, reason: str, *, outcome: str = "done") -> object: ...


class Access:
    """`start` before use, `running` while it serves."""

    def __init__(self, http: Http, token: str, audit: Audit, clock: Callable[[], float] = time.time) -> None:
        self._directory = http.accounts
        self._password_file = http.password_file
        self._token = digest(token)
        self._audit = audit
        self._now = clock
        self._file = AccountsFile(self._directory)
        self._book = Book()
        self._tokens: dict[str, Token] = {}
        self._sessions = Sessions(http.session_idle_s, http.session_s)
        self._passwords = Passwords()
        self._throttle = Throttle()
        self._failures = Failures()
        self._policy = hashlib.sha256(msgspec.json.encode(http.oidc)).hexdigest()[:16] if http.oidc else ""
        self._looked_at = monotonic()
        self._changing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._book_trouble = ""
        self._notes_trouble = ""

    @property
    def problems(self) -> list[str]:
        """In words; empty when all is well."""
        return [each for each in (self._book_trouble, self._notes_trouble) if each]

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Reads what is there; the first time, makes the operator. Raises ConfigError for a bad password file only."""
        password = load_password(self._password_file) if self._password_file else ""
        try:
            self._sessions.notes = read_notes(self._directory)
        except ConfigError as error:
            log.warning("%s; nobody is signed in now", error)
        try:
            self._take(self._file.read())
        except ConfigError as error:
            self._book_trouble = f"{error}. Until then nobody can sign in; the token in http.token_file still works"
            log.error("%s", self._book_trouble)
            return
        if password:
            self._declare(password)
        elif not self._file.exists():
            password = secrets.token_urlsafe(12)
            self._declare(password)
            # Also where the log is set to tell less.
            log.log(
                max(logging.WARNING, log.getEffectiveLevel()),
                "first start: sign in on the page as %s with the password %s, which is told only now",
                books.FIRST_USER,
                password,
            )

    def _declare(self, password: str) -> None:
        """The operator has this password."""
        user = self._book.user(books.FIRST_USER)
        if user is not None and user.role == "operator" and is_password(password, user.password):
            return
        new = self._new_user(books.FIRST_USER, "operator", hash_password(password))

        def change(book: Book) -> Book:
            if book.user(new.name) is None:
                return books.add_user(book, new)
            return books.change_user(book, new.name, role="operator", password=new.password, serial=new.serial)

        try:
            self._take(self._file.change(change)[1])
        except OSError as error:
            self._book_trouble = f"{self._file.path}: cannot be written ({error.strerror}): users last until a restart"
            log.error("%s", self._book_trouble)
            self._take(self._file.remember(change(self._book)))

    @contextlib.asynccontextmanager
    async def running(self, _app: object = None) -> AsyncIterator[None]:
        """Keeps sessions on disk; a disk that does not take them ends none."""
        # They belong to the loop that serves.
        self._changing, self._wake = asyncio.Lock(), asyncio.Event()
        keeping = asyncio.ensure_future(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._save()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAVE_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            self._sessions.end_expired(self._now())
            await self._save()
            if self._notes_trouble:
                await asyncio.sleep(_RETRY_S)
                self._wake.set()

    async def _save(self) -> None:
        if not self._sessions.changed:
            return
        self._sessions.changed = False
        path = self._directory / SESSIONS
        try:
            await asyncio.to_thread(write, path, msgspec.json.encode(self._sessions.notes))
        except OSError as error:
            self._sessions.changed = True
            if not self._notes_trouble:
                log.warning("%s: %s: who signs in now must do so again after a restart", path, error.strerror)
            self._notes_trouble = f"{path}: cannot be written ({error.strerror}): new sessions last until a restart"
        else:
            self._notes_trouble = ""

    def _take(self, book: Book) -> None:
        self._book = book
        self._tokens = {token.digest: token for token in book.tokens}
        self._sessions.forget_tokens_but({token.id for token in book.tokens})

    def _look(self) -> None:
        """Takes over what another process changed, at most once a second."""
        if self._changing.locked() or monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = monotonic()
        if not self._file.changed():
            return
        old = self._book
        try:
            self._take(self._file.read())
        except ConfigError as error:
            self._book_trouble = f"{error}. Until then those users count that were read before"
            log.error("%s", self._book_trouble)
            return
        self._book_trouble = ""
        self._tell(_CONSOLE, old, self._book)

    def _tell(self, who: str, old: Book, new: Book) -> None:
        for name, words in books.changes(old, new):
            self._audit(who, "accounts", f"user {name}", words)

    # --- who is it -----------------------------------------------------------------------------------------------

    def bearer(self, secret: str, said: str) -> Identity | None:
        """Whose token this is. With the operator's own, the ledger has what the client says of itself: a note, not a
        proof."""
        key = digest(secret)
        if secrets.compare_digest(key, self._token):
            return Identity(name=said, role="operator", origin="file", via="file", who=said)
        self._look()
        token = self._tokens.get(key)
        if token is None or books.is_over(token, self._now()):
            return None
        role = self._role_of(token)
        if role is None:
            return None
        self._sessions.token_used(token.id, self._now())
        owner = "" if token.origin == "file" else f"{token.owner} by "
        return Identity(
            name=token.owner if owner else token.name,
            role=role,
            origin=token.origin,
            via="token",
            who=f"{owner}token {token.name}",
        )

    def _role_of(self, token: Token) -> Role | None:
        if token.origin == "file":
            return token.role
        if token.origin == "oidc":
            return token.role if token.policy == self._policy != "" else None
        user = self._book.user(token.owner)
        return None if user is None else books.least(token.role, user.role)

    def session(self, secret: str) -> Identity | None:
        """Whose session this is; it counts as used now."""
        return self.session_by_key(digest(secret)) if secret else None

    def session_by_key(self, key: str) -> Identity | None:
        self._look()
        session = self._sessions.find(key, self._now())
        if session is None:
            return None
        role: Role | None = session.role if session.under == self._policy != "" else None
        if session.origin == "password":
            user = self._book.user(session.user)
            role = user.role if user is not None and user.serial == session.under else None
        if role is None:
            self._sessions.end(key)
            return None
        return Identity(
            name=session.user, role=role, origin=session.origin, via="session", who=session.user, session=key
        )

    # --- coming and going ----------------------------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, address: str, device: str) -> SignedIn:
        """Raises Wrong, TooMany, Busy."""
        self._look()
        user = self._book.user(name)
        device_key = digest(f"{name}\0{device}") if device else ""
        if user is None or not self._sessions.is_device_of(device_key, name):
            device_key = ""
        wait_s = self._throttle.begin(name, address, device_key, monotonic())
        if wait_s > 0:
            raise TooMany(wait_s)
        stored = user.password if user is not None else None
        if not await self._passwords.check(password, stored, known=bool(device_key)):
            # What an unknown user is called may be a password, in the wrong field.
            line = self._failures.add(name if user else "an unknown user", address, monotonic())
            if line:
                self._audit("the page", "sign-in", f"user {name}" if user else "users", line, outcome="refused")
            raise Wrong
        assert user is not None
        self._throttle.succeeded(name, address, device_key, monotonic())
        if needs_rehash(user.password):
            await self._rehash(user, password)
        if not device_key:
            device = secrets.token_urlsafe(32)
        self._sessions.know_device(digest(f"{name}\0{device}"), name, self._now())
        return SignedIn(session=self._begin(name, "password", user.serial, user.role, address), device=device)

    def sign_in_person(self, name: str, role: Role, address: str) -> SignedIn:
        """Somebody whom the OpenID provider vouched for."""
        return SignedIn(session=self._begin(name, "oidc", self._policy, role, address))

    def _begin(self, name: str, origin: Origin, under: str, role: Role, address: str) -> str:
        secret, now = secrets.token_urlsafe(32), self._now()
        session = Session(user=name, origin=origin, under=under, role=role, made_at=now, used_at=now)
        self._sessions.begin(digest(secret), session)
        self._wake.set()
        how = "by OpenID Connect" if origin == "oidc" else "by password"
        self._audit(name, "sign-in", f"user {name}", f"{how}, from {address}")
        return secret

    def forget(self, secret: str) -> None:
        """A session that its browser replaces by another."""
        self._sessions.end(digest(secret))

    def sign_out(self, secret: str) -> None:
        session = self._sessions.end(digest(secret))
        self._wake.set()
        if session is not None:
            self._audit(session.user, "sign-out", f"user {session.user}", "asked for on the page")

    async def _rehash(self, user: User, password: str) -> None:
        """Today's parameters; the same password, so no session ends. Who was changed meanwhile stays so."""
        stored = await self._passwords.hash(password)

        def change(book: Book) -> Book:
            if book.user(user.name) != user:
                return book
            return books.change_user(book, user.name, password=stored, serial=user.serial)

        with contextlib.suppress(Unsaved):
            await self._change(change)

    # --- changes, by persons -------------------------------------------------------------------------------------

    async def _change(self, change: Callable[[Book], Book], by: str = "") -> None:
        """`by`: whom the ledger names for what becomes of users. Raises KeyError, Refused, Unsaved."""
        async with self._changing:
            try:
                old, new = await asyncio.to_thread(self._file.change, change)
            except (OSError, ConfigError) as error:
                words = getattr(error, "strerror", "") or str(error)
                raise Unsaved(f"{self._file.path}: nothing was changed: {words}") from None
            known = self._book
            self._take(new)
            self._book_trouble = ""
        # What another process had changed and nobody had looked at yet.
        self._tell(_CONSOLE, known, old)
        self._tell(by, old, new)

    @property
    def users(self) -> tuple[User, ...]:
        self._look()
        return self._book.users

    def user(self, name: str) -> User | None:
        return self._book.user(name)

    def _new_user(self, name: str, role: Role, stored: str) -> User:
        return User(name=name, role=role, password=stored, serial=secrets.token_hex(8), made_at=self._now())

    async def add_user(self, by: Identity, name: str, role: Role, password: str) -> User:
        self._check_password(name, password)
        user = self._new_user(name, role, await self._passwords.hash(password))
        await self._change(lambda book: books.add_user(book, user), by.who)
        return user

    async def change_user(self, by: Identity, name: str, role: Role | None, password: str | None) -> User:
        self._book.known(name)
        stored, serial = "", secrets.token_hex(8)
        if password is not None:
            self._check_password(name, password)
            stored = await self._passwords.hash(password)
        change = lambda book: books.change_user(book, name, role=role, password=stored, serial=serial)  # noqa: E731
        await self._change(change, by.who)
        return self._book.known(name)

    async def change_own_password(self, by: Identity, old: str, new: str, address: str) -> None:
        """Ends the user's other sessions. Raises Wrong, TooMany, Busy too."""
        wait_s = self._throttle.begin(by.name, address, by.session, monotonic())
        if wait_s > 0:
            raise TooMany(wait_s)
        if not await self._passwords.check(old, self._book.known(by.name).password, known=True):
            raise Wrong
        self._throttle.succeeded(by.name, address, by.session, monotonic())
        user = await self.change_user(by, by.name, None, new)
        session = self._sessions.notes.sessions.get(by.session)
        if session is not None:
            session.under = user.serial
            self._sessions.changed = True
            self._wake.set()

    def _check_password(self, name: str, password: str) -> None:
        if self._password_file and name == books.FIRST_USER:
            raise Refused(f"the password of {name} is the one in http.password_file: change it there, and restart")
        if trouble := books.password_trouble(password, name):
            raise Refused(trouble)

    async def remove_user(self, by: Identity, name: str) -> None:
        if self._password_file and name == books.FIRST_USER:
            raise Refused(f"{name} is made by http.password_file: take that out of the configuration first")
        await self._change(lambda book: books.remove_user(book, name), by.who)

    def tokens(self, by: Identity) -> list[tuple[Token, float | None]]:
        """With when each was last used: an operator sees all, others their own."""
        self._look()
        return [
            (token, self._sessions.notes.used.get(token.id))
            for token in self._book.tokens
            if by.role == "operator" or _owns(by, token)
        ]

    async def add_token(self, by: Identity, name: str, role: Role, expires_in_s: float | None) -> tuple[Token, str]:
        """The token, and its secret, which is nowhere kept."""
        if books.least(role, by.role) != role:
            raise Refused(f"a {by.role} cannot make a token for more than a {by.role} may")
        secret, now = books.TOKEN_PREFIX + secrets.token_urlsafe(32), self._now()
        token = Token(
            id=secrets.token_hex(6),
            name=name,
            role=role,
            owner=books.FILE_OWNER if by.origin == "file" else by.name,
            origin=by.origin,
            policy=self._policy if by.origin == "oidc" else "",
            digest=digest(secret),
            made_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        await self._change(lambda book: books.add_token(book, token, now))
        until = "until it is revoked" if expires_in_s is None else f"for {expires_in_s / 86400:.3g} days"
        self._audit(by.who, "accounts", f"token {name}", f"made, as {role}, {until}")
        return token, secret

    async def revoke_token(self, by: Identity, token_id: str) -> None:
        """Raises KeyError also for one that is not this person's to see."""
        token = next((token for token, _ in self.tokens(by) if token.id == token_id), None)
        if token is None:
            raise KeyError(token_id)
        await self._change(lambda book: books.revoke_token(book, token_id))
        self._audit(by.who, "accounts", f"token {token.name}", "revoked")


def _owns(by: Identity, token: Token) -> bool:
    return (token.origin, token.owner) == (by.origin, by.name)


def load_password(file: str) -> str:
    """The operator's password that the configuration names. Raises ConfigError; its text never shows the password."""
    password = read_secret(Path(file)).decode("utf-8", errors="replace").strip("\r\n")
    if trouble := books.password_trouble(password, books.FIRST_USER):
        raise ConfigError([f"{file}: {trouble}"])
    return password
