"""Agents as they are shown and as they are asked for. Never a key itself, but when it is made."""

import msgspec

from checkrein.bus.identities import AgentRecord
from checkrein.server.api.revoking import Cut

SHOWN_CHARS = 12


class AgentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/agents. `room`, `environment`: the only ones its key opens ("": any).
    `subjects`: principals of an identity provider that are this agent, `ISSUER SUBJECT` each.
    `label`: a word for the key, for people."""

    agent: str
    owner: str = ""
    room: str = ""
    environment: str = ""
    subjects: list[str] = []
    label: str = ""


class AgentKeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/agents/{agent}/keys."""

    label: str = ""


class AgentKeyLine(msgspec.Struct, frozen=True, kw_only=True):
    """`prefix`: the beginning of the key's SHA-256: its name, nothing that opens."""

    prefix: str
    created_at: int
    created_by: str = ""
    label: str = ""


class AgentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One agent that was added by name. `key` is told once, when it is made. `revoked_at` other
    than 0: it is let in nowhere. `cut`: how many of its sessions a revocation has ended; `pending`:
    the bus servers that have not confirmed it yet."""

    agent: str
    owner: str = ""
    room: str = ""
    environment: str = ""
    keys: list[AgentKeyLine] = []
    subjects: list[str] = []
    created_at: int = 0
    created_by: str = ""
    revoked_at: int = 0
    revoked_by: str = ""
    key: str = ""
    cut: int = 0
    pending: list[str] = []


def identity_line(record: AgentRecord, key: str = "", cut: Cut | None = None) -> AgentIdentity:
    return AgentIdentity(
        agent=record.agent, owner=record.owner, room=record.room, environment=record.environment,
        keys=[
            AgentKeyLine(
                prefix=each.digest[:SHOWN_CHARS], created_at=each.created_at,
                created_by=each.created_by, label=each.label,
            )
            for each in record.keys
        ],
        subjects=record.subjects, created_at=record.created_at, created_by=record.created_by,
        revoked_at=record.revoked_at, revoked_by=record.revoked_by, key=key,
        cut=cut.sessions if cut is not None else 0, pending=cut.pending if cut is not None else [],
    )  # fmt: skip
