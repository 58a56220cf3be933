"""Events to the summary of a run: the one projection, pure, used wherever a run is shown.

Folding commutes: the same events in any order give the same summary, so a summary from the store
and the events that the store has not got yet can be joined (`from_row`, then `fold`). Each event
must be folded once: `highs` tells which of a recorder's events are in already. The aggregate in
`store.schema` is this same projection in SQL; a contract test holds the two together.
"""

import math
from typing import Any

import msgspec

TEXT_CHARS_MAX = 1000
"""Goals and reasons are cut to this length in a summary; the event keeps the whole text."""

INT_MAX = 2**63 - 1

STATES: dict[str, str] = {
    "run.start": "running",
    "step.start": "running",
    "model.request": "waiting_model",
    "tool.invoked": "waiting_tool",
    "approval.requested": "waiting_human",
    "approval.decided": "running",
    "escalation.raised": "escalated",
    "escalation.acknowledged": "running",
}
"""What the beginning of something says about its run. An event of type `status` speaks for itself.
The end of a call says only that the run no longer waits for it, so that a call which finishes while
the run is paused does not make it look running."""

WAITING = ("waiting_model", "waiting_tool")
CALL_ENDS = ("model.response", "tool.returned")

END_RANKS: dict[str, int] = {"halted": 3, "completed": 2, "escalated": 2, "failed": 2}
"""Which end holds when several were told: a halt outranks all, and what the run itself said
outranks `lost` or `unfinished` (1), which others say of it."""

Moment = tuple[int, int]
_NONE = (0, 0, "", "", "", "")


class RunSummary(msgspec.Struct, kw_only=True):
    """What is known of one run. The tuples begin with the moment (`at`, `seq`) that decides between
    two of them; read the properties instead."""

    run_id: str
    first: tuple[int, int, str, str, str, str] = (0, 0, "", "", "", "")
    stated: tuple[int, int, str, str] = (0, 0, "", "")
    call_ended: Moment = (0, 0)
    end: tuple[int, int, int, str, str] = (0, 0, 0, "", "")
    named: tuple[int, int, str] = (0, 0, "")
    parent: str = ""
    task_type: str = ""
    step: int = 0
    tokens_counted: int = 0
    tokens_told: int = 0
    usd_counted: float = 0.0
    usd_told: float = 0.0
    tool_calls: int = 0
    errors: int = 0
    own_last_at: int = 0
    unpriced: int = 0
    lows: dict[str, int] = {}
    highs: dict[str, int] = {}
    """The lowest and the highest number folded, by `source_of`."""

    @property
    def started_at(self) -> int:
        return self.first[0]

    @property
    def agent(self) -> str:
        return self.first[2]

    @property
    def room(self) -> str:
        return self.first[3]

    @property
    def environment(self) -> str:
        return self.first[4]

    @property
    def task_id(self) -> str:
        return self.first[5]

    @property
    def ended_at(self) -> int:
        """0 while the run goes on."""
        return self.end[1]

    @property
    def last_event_at(self) -> int:
        """When the run itself last recorded anything; what roles write about it does not count."""
        return self.own_last_at or self.first[0]

    @property
    def status(self) -> str:
        if self.end[0]:
            return self.end[3]
        if self.stated[2] in WAITING and self.call_ended > self.stated[:2]:
            return "running"
        return self.stated[2] or "running"

    @property
    def reason(self) -> str:
        return self.end[4] if self.end[0] else self.stated[3]

    @property
    def goal(self) -> str:
        return self.named[2]

    @property
    def tokens(self) -> int:
        """Counted from the model's answers, or what the run's end told if that is more."""
        return max(self.tokens_counted, self.tokens_told)

    @property
    def usd(self) -> float:
        """The part that is known: see `usd_unknown`."""
        return round(max(self.usd_counted, self.usd_told), 9)

    @property
    def usd_unknown(self) -> bool:
        """A model call was made whose price nobody knows: `usd` is less than what was spent."""
        return self.unpriced > 0


def fold(summary: RunSummary | None, fields: dict[str, Any], at: int | None = None) -> RunSummary:
    """Takes one event (its plain map) into the summary of its run, which is changed and returned;
    None begins a new one. `at` is the event's place in time where that is better known than by its
    own `ts` (see `LaneClock`)."""
    summary = summary or RunSummary(run_id=fields["run_id"])
    kind = fields["type"]
    when = fields["ts"] if at is None else at
    seq = fields["seq"]
    place = (fields["agent"], fields["room"], fields["environment"], fields["task_id"])
    first = (when, seq, *place)
    if summary.first == _NONE or first < summary.first:
        summary.first = first
    if not fields["recorder"].startswith("role:"):
        summary.own_last_at = max(summary.own_last_at, when)
    summary.step = max(summary.step, fields["step"])
    source = source_of(fields["agent"], fields["recorder"])
    summary.lows[source] = min(summary.lows.get(source, seq), seq)
    summary.highs[source] = max(summary.highs.get(source, seq), seq)
    _say_status(summary, kind, when, seq, fields)
    goal = text_of(fields, "goal")
    if goal:
        summary.named = max(summary.named, (when, seq, goal))
    summary.parent = max(summary.parent, text_of(fields, "parent_run_id"))
    summary.task_type = max(summary.task_type, text_of(fields, "task_type"))
    if kind == "tool.invoked":
        summary.tool_calls += 1
    if is_failure(fields):
        summary.errors += 1
    _spend(summary, kind, fields)
    return summary


def _say_status(
    summary: RunSummary, kind: str, when: int, seq: int, fields: dict[str, Any]
) -> None:
    if kind == "run.end":
        status = text_of(fields, "status")
        rank = END_RANKS.get(status, 1)
        summary.end = max(summary.end, (rank, when, seq, status, text_of(fields, "reason")))
        return
    if kind in CALL_ENDS:
        summary.call_ended = max(summary.call_ended, (when, seq))
        return
    stated = text_of(fields, "status") if kind == "status" else STATES.get(kind, "")
    if stated:
        reason = text_of(fields, "reason") if kind == "status" else ""
        summary.stated = max(summary.stated, (when, seq, stated, reason))


def _spend(summary: RunSummary, kind: str, fields: dict[str, Any]) -> None:
    if kind == "model.response":
        summary.tokens_counted += int_of(fields, "input_tokens") + int_of(fields, "output_tokens")
        summary.usd_counted += float_of(fields, "usd")
        summary.unpriced += is_unpriced(fields)
    elif kind == "run.end":
        summary.tokens_told = max(summary.tokens_told, int_of(fields, "tokens"))
        summary.usd_told = max(summary.usd_told, float_of(fields, "usd"))


def is_failure(fields: dict[str, Any]) -> bool:
    """Whether this event is a tool or model call that went wrong (a refusal is not)."""
    if fields["type"] not in CALL_ENDS or fields.get("status") in ("denied", "cancelled"):
        return False
    return bool(fields.get("error")) or fields.get("status") == "error"


def is_unpriced(fields: dict[str, Any]) -> bool:
    """Whether this event is a model call that was made and of which no price is known."""
    if fields["type"] != "model.response" or fields.get("error"):
        return False
    return type(fields.get("usd")) not in (int, float)


def source_of(agent: str, recorder: str) -> str:
    """Who numbered an event."""
    return f"{agent}/{recorder}"


def text_of(fields: dict[str, Any], name: str) -> str:
    """A field as the text a summary shows: cut, and empty when it is no text."""
    value = fields.get(name)
    return value[:TEXT_CHARS_MAX] if type(value) is str else ""


def int_of(fields: dict[str, Any], name: str) -> int:
    """A field as a count: 0 when it is no integer or out of range."""
    value = fields.get(name)
    return value if type(value) is int and 0 <= value <= INT_MAX else 0


def float_of(fields: dict[str, Any], name: str) -> float:
    """A field as a finite number, else 0."""
    value = fields.get(name)
    if type(value) is int and abs(value) <= INT_MAX:
        return float(value)
    return value if type(value) is float and math.isfinite(value) else 0.0


_PUBLIC = (
    "run_id", "agent", "room", "environment", "task_id", "task_type", "parent", "goal", "status",
    "reason", "step", "tokens", "usd", "tool_calls", "errors", "started_at", "ended_at",
    "last_event_at", "usd_unknown",
)  # fmt: skip
_STATE = tuple(name for name in RunSummary.__struct_fields__ if name != "run_id")


def as_row(summary: RunSummary) -> dict[str, Any]:
    """What the queries `run` and `runs` answer: the public fields, and under `state` all that is
    needed to go on folding."""
    row = {name: getattr(summary, name) for name in _PUBLIC}
    state = {name: getattr(summary, name) for name in _STATE}
    row["state"] = {**state, "lows": dict(summary.lows), "highs": dict(summary.highs)}
    return row


def from_row(row: dict[str, Any]) -> RunSummary:
    """The summary that `as_row` made this row from."""
    return msgspec.convert({"run_id": row["run_id"], **row["state"]}, RunSummary)


class LaneClock:
    """Times that never run backwards within a lane: an event's `ts`, or the lane's last time when a
    stepping clock set it earlier. So the events of a recorder stay in the order of their numbers
    while those of several are ordered by the clock."""

    def __init__(self, last_at: int = 0) -> None:
        self.last_at = last_at

    def at(self, ts: int) -> int:
        self.last_at = max(self.last_at, ts)
        return self.last_at
