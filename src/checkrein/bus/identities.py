"""Who an agent is: its keys, its runs' keys, and whether it is shut out. As they stand in buckets.

A key is 256 random bits behind a prefix that says its kind; of it only the SHA-256 is kept, so it
is shown once, when it is made.

    cra_…   an agent's own. Good at the api (sessions of that agent) and at every gateway, until it
            is revoked.
    crr_…   one run's. Good at gateways, for that run, for five minutes; the supervisor that attests
            the run renews it in place, so the program's environment need not change.
    cro_…   the operator's, crt_… one that the operator made: the api's alone, never a gateway's.
"""

import hashlib
from typing import Literal

import msgspec

from checkrein.bus.subjects import token

AGENT_KEY = "cra_"
RUN_KEY = "crr_"
RUN_KEY_LIFE_S = 300
RUN_KEY_RENEW_S = 100


class AgentKey(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    created_at: int
    created_by: str = ""
    label: str = ""


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. `subjects`: principals of an identity provider that are this agent, each
    `issuer subject` with one space between. `revoked_at` other than 0: it is let in nowhere."""

    agent: str
    owner: str = ""
    room: str = ""
    environment: str = ""
    keys: list[AgentKey] = []
    subjects: list[str] = []
    created_at: int = 0
    created_by: str = ""
    revoked_at: int = 0
    revoked_by: str = ""


class RunToken(msgspec.Struct, frozen=True, kw_only=True):
    """A run's key, under its digest. `session` is the holder's that attested it: `pid`, `user`
    and `started_at` (of the process, ns since 1970) are as it saw them."""

    run_id: str
    task_id: str
    agent: str
    room: str
    environment: str
    session: str
    expires_at: int
    pid: int = 0
    user: str = ""
    started_at: int = 0
    host: str = ""


class RunTokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /api/v1/run-tokens, by whoever holds the run's session. With `token` (a run's key), that
    one is renewed; else one is made."""

    run_id: str
    session: str
    task_id: str = ""
    agent: str = ""
    room: str = ""
    environment: str = ""
    pid: int = 0
    user: str = ""
    started_at: int = 0
    host: str = ""
    token: str = ""


class RunTokenGrant(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    expires_at: int


class Contained(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that every gateway refuses until a person releases it."""

    agent: str
    reason: str
    issued_by: str
    at: int
    command_id: str = ""


class HaltedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's own run of an agent that was halted: no other takes its place for as long as its
    calls keep coming. `name` is what the agent calls the run (empty: nothing)."""

    agent: str
    name: str
    run_id: str
    reason: str = ""
    issued_by: str = ""
    at: int = 0

    @property
    def key(self) -> str:
        return f"{token(self.agent)}.{token(self.name)}"


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway that serves, written when it is ready and every few seconds. `providers`: which
    protocols (`openai`, `anthropic`) it has a key for; `socket`: its Unix socket on `host`."""

    session: str
    url: str
    host: str
    pid: int
    at: int
    socket: str = ""
    providers: list[str] = []
    mcp: list[str] = []


Kind = Literal["agent", "run"]


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
