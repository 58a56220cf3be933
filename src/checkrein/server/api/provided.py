"""Who a token of an identity provider is here: an agent that was added, or a person with roles."""

from checkrein.bus.oidc import TokenRefused, Verified, Verifier
from checkrein.server.api.agents import Agents, identity_of
from checkrein.server.api.problems import Unauthorised
from checkrein.server.api.roles import Identity, Role

_DO = "Ask for a token for this server, or see [identity] in checkrein.toml."


async def identify(verifier: Verifier, agents: Agents, token: str) -> Identity | None:
    """None: no token of a provider that is believed here. Raises Unauthorised, saying why."""
    try:
        verified = await verifier.verify(token)
    except TokenRefused as error:
        raise Unauthorised(f"the token is not accepted: {error}", _DO) from error
    return None if verified is None else whom(verified, agents)


def whom(verified: Verified, agents: Agents) -> Identity:
    """An agent before a person: whoever is both may do what the agent may. Raises Unauthorised."""
    record = agents.of_subject(verified.principal) or agents.get(verified.agent)
    if record is not None:
        if record.revoked_at:
            raise Unauthorised(f"agent {record.agent!r} was revoked", _DO, "revoked")
        return identity_of(record, "")
    if not verified.roles:
        who = f"agent {verified.agent[:80]!r}" if verified.agent else repr(verified.principal[:300])
        raise Unauthorised(
            f"the token is good, and {who} is nobody here",
            "Add the agent (`checkrein agent add NAME --subject …`), or give the person a role.",
            "unknown_principal",
        )
    first, *more = verified.roles
    return Identity(name=verified.name, role=_role(first), more=tuple(_role(one) for one in more))


def _role(name: str) -> Role:
    return name  # type: ignore[return-value] # one of ROLES: the settings were checked
