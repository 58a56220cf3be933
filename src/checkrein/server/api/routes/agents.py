"""Agents by name: their keys, and taking them back. (Who runs is listed in `runs`.)"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from checkrein.bus.identities import AgentRecord
from checkrein.bus.types import BusError
from checkrein.server.api.agents import KEYS_MAX, AgentKnown, NoAgent, TooManyKeys
from checkrein.server.api.identity_shapes import (
    AgentBody,
    AgentIdentity,
    AgentKeyBody,
    identity_line,
)
from checkrein.server.api.problems import Ambiguous, BadRequest, NotThere, Unready
from checkrein.server.api.roles import who
from checkrein.server.api.routes import pacts
from checkrein.server.api.routes.common import API
from checkrein.server.api.services import Services

CHARS_MAX = 200
SUBJECTS_MAX = 32
SUBJECT_CHARS_MAX = 1_000
PREFIX_CHARS_MIN = 4


@post(f"{API}/agents", operation_id="addAgent", status_code=201)
async def add_agent(
    services: NamedDependency[Services], request: Request[Any, Any, Any], data: JSONBody[AgentBody]
) -> AgentIdentity:
    """Gives an agent a name and a key of its own, told here once. It lives by the `default` pact
    until it is given its own, and is recorded in full from its first run. An agent that was revoked
    comes back so, with none of its old keys."""
    _check(services, data)
    wanted = AgentRecord(
        agent=data.agent, owner=data.owner, room=data.room, environment=data.environment,
        subjects=data.subjects,
    )  # fmt: skip
    with _answering():
        record, key = await services.agents.add(wanted, who(request.scope).name, data.label)
    return identity_line(record, key)


@get(f"{API}/agents/{{agent:str}}", operation_id="getAgent")
async def get_agent(services: NamedDependency[Services], agent: FromPath[str]) -> AgentIdentity:
    """Who this agent is: its owner, what its keys are bound to, and which keys there are."""
    record = services.agents.get(agent)
    if record is None:
        raise _nobody(agent)
    return identity_line(record)


@delete(f"{API}/agents/{{agent:str}}", operation_id="revokeAgent", status_code=200)
async def revoke_agent(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str]
) -> AgentIdentity:
    """Lets an agent in nowhere any more: its keys open nothing, its runs' keys neither, and the
    buses cut the sessions that it has. Asked again, it does what was left undone."""
    with _answering():
        record = await services.agents.revoke(agent, who(request.scope).name)
        await services.run_tokens.revoke_agent(agent)
        cut = await services.revoking.cut(agent)
    return identity_line(record, cut=cut)


@post(f"{API}/agents/{{agent:str}}/keys", operation_id="addAgentKey", status_code=201)
async def add_key(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    data: JSONBody[AgentKeyBody],
) -> AgentIdentity:  # fmt: skip
    """Another key beside those there are, to change them one after the other."""
    _check_text("label", data.label)
    with _answering():
        record, key = await services.agents.add_key(agent, who(request.scope).name, data.label)
    return identity_line(record, key)


@delete(
    f"{API}/agents/{{agent:str}}/keys/{{prefix:str}}", operation_id="revokeAgentKey",
    status_code=200,
)  # fmt: skip
async def revoke_key(
    services: NamedDependency[Services], request: Request[Any, Any, Any], agent: FromPath[str],
    prefix: FromPath[str],
) -> AgentIdentity:  # fmt: skip
    """Takes back one key, by the beginning of its digest. Its sessions end; others go on."""
    if len(prefix) < PREFIX_CHARS_MIN:
        raise BadRequest(
            f"{prefix!r} is too short to name a key", f"Give {PREFIX_CHARS_MIN} characters or more."
        )
    with _answering():
        record, digest = await services.agents.revoke_key(agent, prefix, who(request.scope).name)
        cut = await services.revoking.cut(agent, digest)
    return identity_line(record, cut=cut)


def _check(services: Services, data: AgentBody) -> None:
    pacts.check_name(data.agent)
    for name in ("owner", "room", "environment", "label"):
        _check_text(name, getattr(data, name))
    if len(data.subjects) > SUBJECTS_MAX:
        raise BadRequest(f"more than {SUBJECTS_MAX} subjects", "Name fewer.")
    for subject in data.subjects:
        issuer, _, rest = subject.partition(" ")
        if not issuer or not rest or len(subject) > SUBJECT_CHARS_MAX or not subject.isprintable():
            raise BadRequest(
                f"{subject[:80]!r} is no subject",
                "It is `ISSUER SUBJECT`: the identity provider's address, a space, and whom it "
                "means.",
            )
        known = services.agents.of_subject(subject)
        if known is not None and known.agent != data.agent and not known.revoked_at:
            raise Ambiguous(f"{subject[:200]!r} is agent {known.agent!r}", "Revoke that one first.")


def _check_text(name: str, text: str) -> None:
    if len(text) > CHARS_MAX or (text and not text.isprintable()):
        raise BadRequest(
            f"`{name}` cannot be {text[:80]!r}", f"Give at most {CHARS_MAX} printable characters."
        )


def _nobody(agent: str) -> NotThere:
    return NotThere(
        f"nobody has added an agent {agent[:80]!r}", "`checkrein agent add NAME` does.",
        "unknown_agent",
    )  # fmt: skip


@contextmanager
def _answering() -> Iterator[None]:
    """Errors of the agents as answers."""
    try:
        yield
    except AgentKnown as error:
        raise Ambiguous(
            f"there is an agent {error} already",
            "`checkrein agent key NAME` gives it another key; revoke it to begin anew.",
        ) from error
    except TooManyKeys as error:
        raise Ambiguous(
            f"agent {error} has {KEYS_MAX} keys", "Take one back: `checkrein agent revoke --key`."
        ) from error
    except NoAgent as error:
        raise NotThere(
            f"no agent or key fits: {str(error)[:300]}", "`checkrein agent list` shows them.",
            "unknown_agent",
        ) from error  # fmt: skip
    except BusError as error:
        raise Unready(
            f"the control bus does not answer: {error}", "Ask again in a moment."
        ) from error


ROUTES = [add_agent, get_agent, revoke_agent, add_key, revoke_key]
