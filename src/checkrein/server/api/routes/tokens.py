"""Tokens: who may ask for what."""

from typing import Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from checkrein.bus.types import BusError
from checkrein.server.api.problems import Ambiguous, BadRequest, NotThere, Unready
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services
from checkrein.server.api.shapes import TokenBody, TokenLine
from checkrein.server.api.tokens import NameTaken, TokenRecord

NAME_CHARS_MAX = 100


@get(f"{API}/tokens", operation_id="listTokens")
async def list_tokens(services: NamedDependency[Services]) -> list[TokenLine]:
    """All tokens that were made, by name. What they are cannot be shown again."""
    return [_line(record) for record in services.tokens.all()]


@post(f"{API}/tokens", operation_id="createToken", status_code=201)
async def create_token(
    services: NamedDependency[Services], request: Request[Any, Any, Any], data: JSONBody[TokenBody]
) -> TokenLine:
    """Makes a token for somebody, of a role. Only an admin may."""
    if not 0 < len(data.name) <= NAME_CHARS_MAX or not data.name.isprintable():
        raise BadRequest(
            f"{data.name[:80]!r} cannot name a token",
            f"Names have 1 to {NAME_CHARS_MAX} printable characters.",
        )
    try:
        given = await services.tokens.create(data.name, data.role, who(request.scope).name)
    except NameTaken as error:
        raise Ambiguous(
            f"there is a token {data.name!r} already", "Revoke it first, or choose another name."
        ) from error
    except BusError as error:
        raise _unready(error) from error
    made = next(record for record in services.tokens.all() if record.name == data.name)
    return _line(made, given)


@delete(f"{API}/tokens/{{name:str}}", operation_id="revokeToken", status_code=200)
async def revoke_token(
    services: NamedDependency[Services], request: Request[Any, Any, Any], name: FromPath[str]
) -> list[TokenLine]:
    """Ends a token at once. Answers with those that are left."""
    try:
        if not await services.tokens.revoke(name, who(request.scope).name):
            raise NotThere(f"there is no token {name[:80]!r}", "GET /api/v1/tokens lists them.")
    except BusError as error:
        raise _unready(error) from error
    return [_line(record) for record in services.tokens.all()]


def _unready(error: BusError) -> Unready:
    return Unready(f"the control bus does not answer: {error}", "Ask again in a moment.")


def _line(record: TokenRecord, given: str = "") -> TokenLine:
    return TokenLine(
        name=record.name, role=record.role, created_at=record.created_at,
        created_by=record.created_by, token=given,
    )  # fmt: skip


ROUTES = [list_tokens, create_token, revoke_token]
