"""The keys of runs, for whoever holds a run's session."""

from typing import Any

import msgspec
from litestar import Request, delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from checkrein.bus.identities import RunTokenGrant, RunTokenRequest
from checkrein.bus.types import BusError
from checkrein.server.api.problems import Forbidden, Unready
from checkrein.server.api.roles import who
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys of the run there were."""

    revoked: int


@post(f"{API}/run-tokens", operation_id="grantRunToken", status_code=201)
async def grant(
    services: NamedDependency[Services], request: Request[Any, Any, Any],
    data: JSONBody[RunTokenRequest],
) -> RunTokenGrant:  # fmt: skip
    """A run's key for the gateways, good for five minutes; with `token`, that one is renewed. The
    session must be a supervisor's or an SDK's and speak for the run's agent. 404 `unknown_key`: it
    was taken back, and is not given again."""
    if data.agent and services.agents.revoked(data.agent):
        raise Forbidden(f"agent {data.agent[:80]!r} was revoked", "It is let in nowhere.")
    try:
        granted = await services.run_tokens.grant(data, who(request.scope))
    except BusError as error:
        raise _unready(error) from error
    if services.run_tokens.sweep_is_due():
        services.spawn(services.run_tokens.sweep)
    return granted


@delete(f"{API}/run-tokens/{{run_id:str}}", operation_id="revokeRunTokens", status_code=200)
async def revoke(
    services: NamedDependency[Services], request: Request[Any, Any, Any], run_id: FromPath[str]
) -> Revoked:
    """Takes back all keys of a run. An agent's key reaches its own runs only."""
    try:
        return Revoked(revoked=await services.run_tokens.revoke(run_id, who(request.scope)))
    except BusError as error:
        raise _unready(error) from error


def _unready(error: BusError) -> Unready:
    return Unready(f"the control bus does not answer: {error}", "Ask again in a moment.")


ROUTES = [grant, revoke]
