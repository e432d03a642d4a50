"""/api/v1/me, /tokens, /users: what a person may do with accounts."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from litestar import delete, get, post, put
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, RequestBody
from msgspec import UNSET, Meta, UnsetType

from vagus_controller.accounts import book as books
from vagus_controller.accounts.access import Access, Identity
from vagus_controller.accounts.book import Origin, Role, Token, User
from vagus_controller.api.auth import Asked, address, identity
from vagus_controller.api.routes import Ask
from vagus_controller.views import View

_MAX_TOKEN_S: Final = 10 * 365 * 86400

UserName = Annotated[str, Meta(min_length=1, max_length=32, pattern="^[a-z][a-z0-9._-]*$")]
TokenName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9 ._@-]*$")]
NewPassword = Annotated[str, Meta(min_length=books.MIN_PASSWORD, max_length=books.MAX_PASSWORD)]


class MeView(View, frozen=True, kw_only=True):
    """Who asks. `origin`: a user's password, OpenID Connect, or http.token_file; `via`: how this request came."""

    name: str
    role: Role
    origin: Origin
    via: Literal["session", "token", "file"]
    # Whether POST /me/password is for this person.
    has_password: bool
    # Whether this person may make tokens here, and an operator users: by session or by http.token_file.
    manages: bool


class UserView(View, frozen=True, kw_only=True):
    name: str
    role: Role
    made_at: float


class TokenView(View, frozen=True, kw_only=True):
    """An API token; `owner`: who made it, "-": made with http.token_file. Times are wall-clock epoch seconds."""

    id: str
    name: str
    role: Role
    owner: str
    made_at: float
    expires_at: float | None
    # Within a minute.
    used_at: float | None


class NewTokenView(View, frozen=True, kw_only=True):
    """`secret` is told only now."""

    token: TokenView
    secret: str


class PasswordAsk(Ask, frozen=True, kw_only=True):
    old: Annotated[str, Meta(max_length=books.MAX_PASSWORD)]
    new: NewPassword


class TokenAsk(Ask, frozen=True, kw_only=True):
    name: TokenName
    role: Role = "viewer"
    # None: until it is revoked.
    expires_in_s: Annotated[float, Meta(ge=60, le=_MAX_TOKEN_S)] | None = None


class UserAsk(Ask, frozen=True, kw_only=True):
    name: UserName
    role: Role
    password: NewPassword


class UserChangeAsk(Ask, frozen=True, kw_only=True):
    """What is left out stays."""

    role: Role | UnsetType = UNSET
    password: NewPassword | UnsetType = UNSET


def account_routes(access: Access) -> tuple[HTTPRouteHandler, ...]:
    @get("/me", sync_to_thread=False, summary="Who asks, and what they may do", tags=["accounts"])
    def me(request: Asked) -> MeView:
        asks = identity(request)
        return MeView(
            name=asks.name,
            role=asks.role,
            origin=asks.origin,
            via=asks.via,
            has_password=asks.via == "session" and asks.origin == "password",
            manages=asks.via != "token",
        )

    @post(
        "/me/password",
        status_code=204,
        opt={"viewer": True},
        summary="Change one's own password; ends one's other sessions",
        tags=["accounts"],
    )
    async def password(request: Asked, data: RequestBody[PasswordAsk]) -> None:
        asks = identity(request)
        if asks.via != "session" or asks.origin != "password":
            raise HTTPException(
                status_code=403,
                detail="only a user who signed in by password has one; `PUT /users/NAME` sets another's",
            )
        await access.change_own_password(asks, data.old, data.new, address(request))

    @get("/tokens", sync_to_thread=False, summary="One's own API tokens; an operator sees all", tags=["accounts"])
    def tokens(request: Asked) -> list[TokenView]:
        return [_token(token, used_at) for token, used_at in access.tokens(identity(request))]

    @post("/tokens", opt={"viewer": True}, summary="Make an API token; its secret is told once", tags=["accounts"])
    async def make_token(request: Asked, data: RequestBody[TokenAsk]) -> NewTokenView:
        token, secret = await access.add_token(_manager(request), data.name, data.role, data.expires_in_s)
        return NewTokenView(token=_token(token, None), secret=secret)

    @delete("/tokens/{token_id:str}", opt={"viewer": True}, summary="Revoke an API token", tags=["accounts"])
    async def revoke(request: Asked, token_id: FromPath[str]) -> None:
        try:
            await access.revoke_token(_manager(request), token_id)
        except KeyError:
            raise NotFoundException(detail=f"no token {token_id[:32]!r} of yours; GET /tokens lists them") from None

    @get("/users", sync_to_thread=False, summary="All users; for operators", tags=["accounts"])
    def users(request: Asked) -> list[UserView]:
        if identity(request).role != "operator":
            raise HTTPException(status_code=403, detail="only an operator may see who else may come in")
        return [_user(user) for user in access.users]

    @post("/users", summary="Make a user", tags=["accounts"])
    async def make_user(request: Asked, data: RequestBody[UserAsk]) -> UserView:
        return _user(await access.add_user(_manager(request), data.name, data.role, data.password))

    @put(
        "/users/{name:str}",
        summary="Change a user's role, or set a new password, which ends the user's sessions",
        tags=["accounts"],
    )
    async def change_user(request: Asked, name: FromPath[str], data: RequestBody[UserChangeAsk]) -> UserView:
        role = None if data.role is UNSET else data.role
        new = None if data.password is UNSET else data.password
        try:
            return _user(await access.change_user(_manager(request), name, role, new))
        except KeyError:
            raise _no_user(name) from None

    @delete("/users/{name:str}", summary="Remove a user, with sessions and tokens", tags=["accounts"])
    async def remove_user(request: Asked, name: FromPath[str]) -> None:
        try:
            await access.remove_user(_manager(request), name)
        except KeyError:
            raise _no_user(name) from None

    return (me, password, tokens, make_token, revoke, users, make_user, change_user, remove_user)


def _manager(request: Asked) -> Identity:
    """Who leaks an API token must not leave behind what outlives it."""
    asks = identity(request)
    if asks.via == "token":
        raise HTTPException(
            status_code=403,
            detail="an API token cannot change accounts: sign in on the page, or use the token in http.token_file",
        )
    return asks


def _no_user(name: str) -> NotFoundException:
    return NotFoundException(detail=f"no user {name[:32]!r}; GET /users lists them")


def _user(user: User) -> UserView:
    return UserView(name=user.name, role=user.role, made_at=user.made_at)


def _token(token: Token, used_at: float | None) -> TokenView:
    return TokenView(
        id=token.id,
        name=token.name,
        role=token.role,
        owner=token.owner,
        made_at=token.made_at,
        expires_at=token.expires_at,
        used_at=used_at,
    )
