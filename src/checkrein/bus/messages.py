"""What travels besides events: sessions, orders, progress, beats, confirmations, queries.

All are msgpack maps (`encode`, `decode`). Times are ns since 1970 (`_at`) or milliseconds (`_ms`).

A *session* is one holder of runs: a supervisor, or a process with the SDK and no supervisor. The
api role grants it; its bus credential lets it publish events for its agents, hear its own orders,
and nothing else. An *order* is a command as it is sent to one session; *progress* is what that
session says became of it, run by run.
"""

from typing import Any, Literal, TypeVar

import msgspec

Holder = Literal["supervisor", "sdk", "gateway"]
Verb = Literal[
    "pause", "resume", "halt", "redirect", "inject", "escalate", "approve", "deny",
    "rollback", "inspect", "contain", "release", "probe",
]  # fmt: skip
Rung = Literal["fence", "freeze", "capture", "unwind", "kill", "revoke"]
Stage = Literal[
    "delivered", "fence", "freeze", "capture", "unwind", "kill", "revoke",
    "held", "resumed", "obeyed", "refused", "failed", "probe",
]  # fmt: skip

Outcome = Literal["", "obeyed", "refused", "failed", "superseded", "ended"]
"""How a run's line of a command ended; "" while it is open. Only `obeyed` is success."""


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /api/v1/sessions. Ask again (same `session`) to renew, or for more agents. `pacts`: YAML
    text by agent, stored and put in force before the answer (in `development` and in environments
    of other names than `staging` and `production`, where a pact comes by promotion only)."""

    kind: Holder
    agents: list[str]
    session: str = ""
    room: str = ""
    environment: str = ""
    host: str = ""
    pid: int = 0
    pacts: dict[str, str] = {}


class SessionGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: where the buses are, the credential for both, and each agent's pact (YAML text,
    empty: none stored). `pact_sets`: the same, whole and signed (`bus.pacts`). `gateway_url`: a
    gateway that serves ("": none does), `gateway_socket` its Unix socket if it is on the asking
    host, `gateway_providers` the protocols it has a key for."""

    session: str
    bus_urls: list[str]
    control_urls: list[str]
    jwt: str
    seed: str
    control_key: str
    expires_at: int
    pacts: dict[str, str] = {}
    pact_sets: dict[str, bytes] = {}
    gateway_url: str = ""
    gateway_socket: str = ""
    gateway_providers: list[str] = []


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who a session is, as the api granted it: written to the bucket `sessions` before the grant is
    answered, so whatever a session does, this is there to hold it against. `user` is the public key
    of its newest credential, by which the servers' logs name it; `earlier` those of the credentials
    before, which may still be in use. `by`: `agent:NAME:KEY` when it was opened with an agent's
    key, by which that session is cut when the key is taken back; "" for people and their
    programs. `formerly`: agents that credentials of before speak for, and this one does not."""

    session: str
    kind: Holder
    agents: list[str]
    user: str
    expires_at: int
    earlier: list[str] = []
    room: str = ""
    environment: str = ""
    host: str = ""
    pid: int = 0
    by: str = ""
    formerly: list[str] = []


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A live run as its holder registers it, and as `ps` begins from it."""

    run_id: str
    task_id: str
    agent: str
    room: str
    environment: str
    session: str
    holder: Holder
    started_at: int
    pid: int = 0
    host: str = ""
    goal: str = ""
    task_type: str = ""
    parent_run_id: str = ""
    level: str = "L0"
    """Protection really reached, L0 to L3."""


class BeatRun(msgspec.Struct, frozen=True, kw_only=True):
    """`in_flight`: `{call_id, kind, name, since_ns}` with `since_ns` counted by the holder's
    monotonic clock; `age_ms` how long ago the run last recorded anything."""

    run_id: str
    status: str
    step: int = 0
    epoch: int = 0
    age_ms: float = 0.0
    in_flight: list[dict[str, Any]] = []
    reason: str = ""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent each second by every holder; `ended` repeats until the holder sees it was heard."""

    session: str
    at: int
    runs: list[BeatRun] = []
    ended: list[BeatRun] = []


class BeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """control -> holder, to a beat published with a `reply` subject (a beat without one gets no
    answer). `unknown`: runs control does not know: register them again. `ended`: heard, need not be
    repeated."""

    at: int
    unknown: list[str] = []
    ended: list[str] = []


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    runs: list[RunRecord]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a registration: the standing signed orders of these runs, if any."""

    orders: list[bytes] = []
    error: str = ""


class OrderRun(msgspec.Struct, frozen=True, array_like=True):
    run_id: str
    epoch: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A command to one session.

    Accepted once per run: signature, `session`, `expires_at` (0: stands until superseded, the form
    kept in the bucket) and `epoch` greater than the run's last."""

    command_id: str
    session: str
    verb: Verb
    runs: list[OrderRun]
    reason: str
    issued_by: str
    issued_at: int
    expires_at: int
    nonce: str
    arguments: dict[str, Any] = {}


class SignedOrder(msgspec.Struct, frozen=True, array_like=True):
    """`signature` is Ed25519 over b"checkrein-order-v1" + `payload` (a packed Order)."""

    payload: bytes
    signature: bytes


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder says of one order and one run. `ms` counts from the moment it got the order, on
    its monotonic clock. `by` names who saw it: supervisor, sdk or gateway. A stage may come twice
    (a repeated order): the first counts.

    A message on `rcpt.` is one Progress or a list of them (`progress_of` reads both): a holder of
    many runs sends what happened at once in one message.

    Stage `probe` answers the order `probe` with its `nonce`; `confirmed` then says "I could stop
    this run now: its whole process tree is in my reach", `detail` is the level reached (L0 to L3).
    """

    command_id: str
    session: str
    run_id: str
    epoch: int
    stage: Stage
    ms: float
    at: int
    by: str
    confirmed: bool = False
    """True only from a supervisor or a gateway that saw with its own eyes that nothing goes on."""
    detail: str = ""
    nonce: str = ""


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True):
    """api or watch -> control. `wait_ms`: how long the answer may wait for receipts."""

    verb: Verb
    target: str
    reason: str
    issued_by: str
    arguments: dict[str, Any] = {}
    wait_ms: int = 2000
    command_id: str = ""


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run's line of a command, as `--json` shows it; `how` is `{rung: ms}` as climbed."""

    run_id: str
    agent: str
    epoch: int = 0
    delivered_ms: float | None = None
    obeyed_ms: float | None = None
    how: dict[str, float] = {}
    confirmed: str = ""
    """Who saw it: "supervisor", "gateway", or "" while nobody has."""
    note: str = ""
    outcome: Outcome = ""


class CommandState(msgspec.Struct, frozen=True, kw_only=True):
    command_id: str
    verb: str
    target: str
    reason: str
    issued_by: str
    asked_at: int
    runs: list[CommandRun] = []
    done: bool = False
    error: str = ""
    epoch: int = 0
    arguments: dict[str, Any] = {}
    escalated: bool = False
    """Not confirmed for so long that a human was told."""


class LiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """What control knows of a run (`ctl.runs` answers a list of these)."""

    record: RunRecord
    status: str
    step: int
    epoch: int
    can_halt: bool
    can_halt_why: str
    probed_ms_ago: float | None
    beat_ms_ago: float
    in_flight: list[dict[str, Any]] = []
    reason: str = ""


class LiveQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `ctl.runs` and `ctl.commands` are asked (empty bytes: the defaults). Runs come in order
    of their id, commands the newest first; ask again with `after` = the last id for more. With
    `ids`, just these; with `session`, just the live runs that it holds."""

    ids: list[str] = []
    session: str = ""
    after: str = ""
    limit: int = 1000


class LiveChanged(msgspec.Struct, frozen=True, kw_only=True):
    """On `live.changed`, at most every 50 ms: what to ask about again."""

    runs: list[str] = []
    commands: list[str] = []
    approvals: list[str] = []
    escalations: list[str] = []


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """archive -> shipper: every event of this recorder and agent up to `upto[partition]` is durable
    in the store."""

    recorder: str
    upto: dict[int, int]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A named query to archive; the names stand in `store.types`."""

    name: str
    parameters: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query. Long answers come in several messages; `more` says that another follows
    (ask again with `parameters["after"] = next_after`)."""

    rows: list[dict[str, Any]] = []
    error: str = ""
    next_after: Any = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
T = TypeVar("T")


class MessageError(ValueError):
    """Bytes that are not the message they should be."""


def progress_of(data: bytes) -> list[Progress]:
    """What a message on `rcpt.` says. Raises MessageError."""
    many = bool(data) and (data[0] & 0xF0 == 0x90 or data[0] in (0xDC, 0xDD))
    return decode(data, list[Progress]) if many else [decode(data, Progress)]


def encode(message: Any) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises MessageError naming the kind and the place."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return] # the table is keyed by type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error
