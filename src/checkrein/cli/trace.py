"""One run's events as a waterfall: calls with their durations, and what happened between. Pure."""

from typing import Any, NamedTuple

from checkrein.cli.describe import describe, duration_ns, short, took
from checkrein.cli.out import CALM, CAUTION

Fields = dict[str, Any]
_QUIET = ("heartbeat", "iteration", "step.end", "status", "memory.read")


class Row(NamedTuple):
    """`end` None: not over, or a moment. Times are nanoseconds from the run's first event."""

    start: int
    end: int | None
    kind: str
    text: str
    style: str
    depth: int


class _Call:
    """What is known so far of a model or tool call."""

    def __init__(self, kind: str, event: Fields, passages: list[Fields]) -> None:
        self.kind, self.began, self.step = kind, event["ts"], event["step"]
        self.name = str(event.get("tool") or event.get("model") or "")
        self.arguments: Any = None
        self.end: Fields | None = None
        self.passages = passages


def rows_of(events: list[Fields]) -> list[Row]:
    """The waterfall of a run whose events are given in order."""
    if not events:
        return []
    begin = min(event["ts"] for event in events)
    calls: dict[tuple[str, str], _Call] = {}
    steps = {event["step"]: event["ts"] for event in events if event["type"] == "step.end"}
    plan: list[tuple[int, Row | _Call]] = []
    passed: dict[tuple[str, str], list[Fields]] = {}
    for event in events:
        if event["type"] == "passage":
            passed.setdefault(_call_of(event), []).append(event)
    called = {_key(event) for event in events}
    for event in events:
        kind, at = event["type"], event["ts"] - begin
        if key := _key(event):
            call = calls.get(key)
            if call is None:
                call = calls[key] = _Call(key[0], event, passed.get(key, []))
                plan.append((at, call))
            _learn(call, event)
        elif kind == "passage" and _call_of(event) in called:
            pass
        elif kind == "step.start":
            end = steps.get(event["step"])
            plan.append((at, Row(at, end - begin if end else None, f"step {event['step']}", "",
                                 CALM, 0)))  # fmt: skip
        elif kind not in _QUIET or (kind == "status" and event.get("status") == "paused"):
            text, style = describe(event)
            plan.append((at, Row(at, None, kind, text, style, 1 if event["step"] else 0)))
    rows: list[Row] = []
    for _, entry in plan:
        if isinstance(entry, Row):
            rows.append(entry)
        else:
            rows.append(_row(entry, begin))
            rows += [_passage(event, begin) for event in entry.passages]
    return rows


def span_ns(events: list[Fields]) -> int:
    """How long the run itself lasted; what roles say of it later does not count."""
    own = [event["ts"] for event in events if not event["recorder"].startswith("role:")]
    return max(own) - min(event["ts"] for event in events) if own else 0


def _key(event: Fields) -> tuple[str, str] | None:
    """Which call an event is of, if it is of one."""
    kind, _, rest = event["type"].partition(".")
    call_id = event.get("call_id")
    return (kind, str(call_id)) if rest and kind in ("model", "tool") and call_id else None


def _call_of(passage: Fields) -> tuple[str, str]:
    """Which call passed: it is shown below that call, since it is no other one."""
    return str(passage.get("kind", "model")), str(passage.get("call_id", ""))


def _passage(event: Fields, begin: int) -> Row:
    end = max(0, event["ts"] - begin)
    text, style = describe(event)
    return Row(max(0, end - duration_ns(event)), end, "gateway", text, style, 2)


def _learn(call: _Call, event: Fields) -> None:
    call.name = call.name or str(event.get("tool") or event.get("model") or "")
    if event["type"] == "tool.arguments":
        call.arguments = event.get("arguments")
    if event["type"] == "tool.invoked":
        call.began = event["ts"]
    if event["type"] in ("tool.returned", "model.response"):
        call.end = event


def _row(call: _Call, begin: int) -> Row:
    start = max(0, call.began - begin)
    shown = f"{call.name}  {short(call.arguments, 100)}".rstrip()
    if call.end is None:
        return Row(start, None, call.kind, f"{shown}  (no answer)", CAUTION, 1)
    duration = duration_ns(call.end) or call.end["ts"] - call.began
    text, style = describe(call.end)
    text = text.removeprefix(call.name).strip()
    if took(call.end):
        text = text.replace(took(call.end), "", 1).strip()  # it has a column of its own
    arrow = f"  → {text}" if text else ""
    if call.kind == "model":
        arrow = f"  {text}"
    return Row(start, start + max(0, duration), call.kind, f"{shown}{arrow}", style, 1)


def bar(row: Row, whole_ns: int, width: int) -> str:
    """Where in the run the row lies, `width` characters wide."""
    if whole_ns <= 0:
        return " " * width
    left = min(width - 1, row.start * width // whole_ns)
    if row.end is None:
        return " " * left + "·" + " " * (width - left - 1)
    right = min(width, max(left + 1, -(-row.end * width // whole_ns)))
    return " " * left + "━" * (right - left) + " " * (width - right)
