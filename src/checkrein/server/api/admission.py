"""For whom a session may be opened, by who asks. Pure."""

from collections.abc import Callable

import msgspec

from checkrein.bus.messages import SessionRequest
from checkrein.bus.pacts import place_of
from checkrein.server.api.problems import Forbidden
from checkrein.server.api.roles import Identity

OWN_KINDS = ("sdk", "supervisor")


def admitted(
    asked: SessionRequest, asks: Identity, revoked: Callable[[str], bool]
) -> SessionRequest:
    """What may be granted of it: without agents that were revoked, and for an agent's own key only
    what is its own, in its room and environment. Raises Forbidden, saying what is not."""
    if asks.agent:
        asked = _own(asked, asks)
    agents = [agent for agent in asked.agents if not revoked(agent)]
    if not agents:
        raise Forbidden(
            f"agent {', '.join(asked.agents)[:200]} was revoked",
            "It is let in nowhere; `checkrein agent add NAME` admits it again, with a new key.",
            "revoked",
        )
    return msgspec.structs.replace(asked, agents=agents)


def _own(asked: SessionRequest, asks: Identity) -> SessionRequest:
    if set(asked.agents) != {asks.agent}:
        others = ", ".join(sorted({*asked.agents} - {asks.agent}))
        raise Forbidden(
            f"this is the key of agent {asks.agent!r}: it opens no session for {others[:200]}",
            "Name the agent as it was added (CHECKREIN_AGENT, or `agent=` of `checkrein.init`).",
        )
    if asked.kind not in OWN_KINDS:
        raise Forbidden(
            f"an agent's key opens no session of kind `{asked.kind}`",
            f"Its sessions are of kind {' or '.join(OWN_KINDS)}.",
        )
    if asked.pacts:
        raise Forbidden(
            "an agent's key cannot set the pact that the agent lives by",
            "Leave out CHECKREIN_PACT and `pact=`; push it with `checkrein pact push`.",
        )
    if asks.room and asked.room not in ("", asks.room):
        raise _bound("room", asks.room, asked.room)
    if asks.environment and place_of(asked.environment) != asks.environment:
        raise _bound("environment", asks.environment, place_of(asked.environment))
    return msgspec.structs.replace(
        asked, agents=[asks.agent], room=asks.room or asked.room,
        environment=asks.environment or asked.environment,
    )  # fmt: skip


def _bound(what: str, wanted: str, given: str) -> Forbidden:
    return Forbidden(
        f"this agent's key is bound to {what} {wanted!r}, not {given[:80]!r}",
        f"Set CHECKREIN_{what.upper()}={wanted}, or add the agent for another {what}.",
    )
