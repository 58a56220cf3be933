"""Which agent a token of an identity provider is of."""

from checkrein.bus.identities import digest_of
from checkrein.bus.oidc import TokenRefused, Verifier
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.types import Caller, Refusal

_APPEAL = '`checkrein agent add NAME --subject "ISSUER SUBJECT"` says which agent a principal is.'


async def caller_of(verifier: Verifier, keys: KeyBook, token: str) -> Caller | None:
    """None: no token of a provider that is believed here. Raises Refusal (401), saying why."""
    try:
        verified = await verifier.verify(token)
    except TokenRefused as error:
        raise _refused(f"the token is not accepted: {error}") from error
    if verified is None:
        return None
    record = keys.agent_of_subject(verified.principal) or keys.agent(verified.agent)
    if record is None:
        raise _refused(
            f"the token is good, and {verified.agent or verified.principal} is no agent here"
        )
    return Caller(
        agent=record.agent, key=digest_of(verified.principal)[:12], room=record.room,
        environment=record.environment,
    )  # fmt: skip


def _refused(reason: str) -> Refusal:
    return Refusal(401, "unauthenticated", reason, appeal=_APPEAL)
