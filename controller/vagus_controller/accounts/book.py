"""Users and API tokens: a value that people change. Every change is a function that gives a new one, or raises Refused
with what to do instead."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller.views import Refused

Role = Literal["viewer", "operator"]
Origin = Literal["password", "oidc", "file"]
"""How somebody came in: by a user's password, by OpenID Connect, by `http.token_file`."""

FIRST_USER: Final = "operator"
# The owner of what is made with `http.token_file`; not a user's name, since it has no letter first.
FILE_OWNER: Final = "-"
MIN_PASSWORD: Final = 10
MAX_PASSWORD: Final = 200
MAX_USERS: Final = 200
MAX_TOKENS: Final = 500
TOKEN_PREFIX: Final = "vagus_"
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")


class User(Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    # argon2
    password: str
    # Changes with the password: a session that began before ends.
    serial: str
    made_at: float


class Token(Struct, frozen=True, kw_only=True):
    """An API token. Its role is what it was made for, and never more than its owner's is now."""

    id: str
    name: str
    role: Role
    owner: str
    origin: Origin
    # The `[http.oidc]` under which a person of OpenID Connect made it; see `Access`.
    policy: str = ""
    digest: str
    made_at: float
    expires_at: float | None = None


class Book(Struct, frozen=True, kw_only=True):
    v: int = 1
    users: tuple[User, ...] = ()
    tokens: tuple[Token, ...] = ()

    def user(self, name: str) -> User | None:
        return next((user for user in self.users if user.name == name), None)

    def known(self, name: str) -> User:
        """Raises KeyError."""
        user = self.user(name)
        if user is None:
            raise KeyError(name)
        return user


def digest(secret: str) -> str:
    """How a random secret is stored: it has 256 bits, so nothing slow is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def least(one: Role, other: Role) -> Role:
    return "operator" if one == other == "operator" else "viewer"


def name_trouble(name: str) -> str:
    """What is wrong with a new user's name; "" when nothing is."""
    return "" if _NAME.fullmatch(name) else "a user's name is 1 to 32 of a-z 0-9 . _ -, and begins with a letter"


def password_trouble(password: str, user: str) -> str:
    """What is wrong with a new password; "" when nothing is."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        return f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters"
    if password.casefold().strip() == user.casefold() or len(set(password)) < 4:
        return "this password is too easy to guess"
    return ""


def add_user(book: Book, user: User) -> Book:
    if trouble := name_trouble(user.name):
        raise Refused(trouble)
    if book.user(user.name) is not None:
        raise Refused(f"there is a user {user.name} already")
    if len(book.users) >= MAX_USERS:
        raise Refused(f"there are {MAX_USERS} users already: remove some, or let an OpenID provider keep them")
    return replace(book, users=tuple(sorted((*book.users, user), key=lambda each: each.name)))


def change_user(book: Book, name: str, *, role: Role | None = None, password: str = "", serial: str = "") -> Book:
    """`password` and `serial` are given together. Raises KeyError, Refused."""
    user = book.known(name)
    if role == "viewer":
        _keep_an_operator(book, user)
    if role is not None:
        user = replace(user, role=role)
    if password:
        user = replace(user, password=password, serial=serial)
    return replace(book, users=tuple(user if each.name == name else each for each in book.users))


def remove_user(book: Book, name: str) -> Book:
    """With all tokens that the user made. Raises KeyError, Refused."""
    _keep_an_operator(book, book.known(name))
    return replace(
        book,
        users=tuple(each for each in book.users if each.name != name),
        tokens=tuple(each for each in book.tokens if (each.origin, each.owner) != ("password", name)),
    )


def _keep_an_operator(book: Book, user: User) -> None:
    if all(each.role == "viewer" for each in book.users if each.name != user.name) and user.role == "operator":
        raise Refused(f"{user.name} is the last operator: make another one first")


def add_token(book: Book, token: Token, now: float) -> Book:
    """Expired ones make room."""
    if not _TOKEN_NAME.fullmatch(token.name):
        raise Refused(
            "a token's name is 1 to 64 letters, digits, spaces and . _ @ -, and begins with a letter or digit"
        )
    tokens = [each for each in book.tokens if not is_over(each, now)]
    if any((each.name, each.owner) == (token.name, token.owner) for each in tokens):
        raise Refused(f"you have a token {token.name} already: revoke it, or take another name")
    if len(tokens) >= MAX_TOKENS:
        raise Refused(f"there are {MAX_TOKENS} tokens already: revoke some")
    return replace(book, tokens=(*tokens, token))


def revoke_token(book: Book, token_id: str) -> Book:
    """Raises KeyError."""
    left = tuple(each for each in book.tokens if each.id != token_id)
    if left == book.tokens:
        raise KeyError(token_id)
    return replace(book, tokens=left)


def is_over(token: Token, now: float) -> bool:
    return token.expires_at is not None and now >= token.expires_at


def changes(old: Book, new: Book) -> list[tuple[str, str]]:
    """What became of users and tokens, as (whom, words)."""
    found = []
    before = {user.name: user for user in old.users}
    for user in new.users:
        was = before.pop(user.name, None)
        if was is None:
            found.append((user.name, f"made, as {user.role}"))
            continue
        if was.role != user.role:
            found.append((user.name, f"is {user.role} now, was {was.role}"))
        if was.serial != user.serial:
            found.append((user.name, "has a new password; its sessions end"))
    found += [(name, "removed, with its sessions and tokens") for name in before]
    return found
