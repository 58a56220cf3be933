"""Events to columns and back, pure.

The common fields and the hot ones (those that are filtered, counted or summed by) have columns;
the rest of an event is its `body`, JSON without what the columns hold. A field goes to its column
*instead of* the body only if it comes back from there exactly; else it stands in the body, which
outranks the column on reading, and the column has what could be made of it. So every event is
returned with exactly the fields it had.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from checkrein.events.types import COMMON
from checkrein.store import texts
from checkrein.store.objections import NAME_CHARS_MAX, NOT_JSON, objection, refusal
from checkrein.store.position import position_of
from checkrein.store.retention import FOREVER, keep_days
from checkrein.store.runs import float_of, int_of, is_failure, is_unpriced
from checkrein.store.types import Row, StoreError

_WORDS = (
    "tool", "status", "model", "provider", "verdict", "detector", "level", "task_type", "kind",
)  # fmt: skip
_TEXTS = ("call_id", "goal", "reason", "parent_run_id")
_TEXT_CHARS = {"call_id": 256, "goal": 1000, "reason": 1000, "parent_run_id": 1000}
_COUNTS = ("input_tokens", "output_tokens", "tokens", "duration_ns")
_HOT = (*_WORDS, *_TEXTS, *_COUNTS, "usd")

_SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("environment", "room", "agent", "run_id", "task_id")),
    *((name, pa.string()) for name in ("recorder", "type")),
    *((name, pa.int64()) for name in ("seq", "at", "ts", "stored_at")),
    ("step", pa.uint32()), ("partition", pa.uint8()), ("keep_days", pa.uint16()),
    ("failed", pa.uint8()), ("unpriced", pa.uint8()), ("chain", pa.binary()), ("body", pa.string()),
    *((name, pa.string()) for name in _WORDS + _TEXTS),
    *((name, pa.int64()) for name in _COUNTS),
    ("usd", pa.float64()),
])  # fmt: skip

EVENT_COLUMNS: tuple[str, ...] = (*COMMON, "at", "body", *_HOT)
"""What a query must read to give whole events back."""

_JSON = msgspec.json.Encoder()
_PLAIN = msgspec.json.Decoder()


class Placed(NamedTuple):
    """A row with its place in time (see `runs.LaneClock`)."""

    row: Row
    at: int


class Batch(NamedTuple):
    """What one write puts into the store: the events' columns, and the texts they refer to with the
    days they are to be kept (0: for ever)."""

    events: pa.Table
    contents: dict[str, tuple[str, int]]


def build(placed: Sequence[Placed], stored_at: int) -> Batch:
    """Columns for rows that all pass `objection`; raises StoreError naming one that does not."""
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    appends = [(name, columns[name].append) for name in COMMON]
    hot = {name: columns[name].append for name in _HOT}
    contents: dict[str, tuple[str, int]] = {}
    for row, at in placed:
        fields = row.fields
        why = objection(fields)
        if why:
            raise refusal(fields, why)
        rest = dict(fields)
        for name, append in appends:
            append(rest.pop(name))
        days = keep_days(fields["type"])
        columns["at"].append(at)
        columns["partition"].append(row.partition)
        columns["chain"].append(row.chain)
        columns["keep_days"].append(days)
        columns["failed"].append(int(is_failure(fields)))
        columns["unpriced"].append(int(is_unpriced(fields)))
        _take_hot(fields, rest, hot)
        try:
            columns["body"].append(_body(rest, days, contents) if rest else "")
        except NOT_JSON as error:
            raise refusal(fields, f"JSON cannot say it: {error}") from error
    columns["stored_at"] = [stored_at] * len(placed)
    try:
        return Batch(pa.table(columns, schema=_SCHEMA), contents)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise StoreError(f"cannot make columns of {len(placed)} events: {error}") from error


def _take_hot(fields: dict[str, Any], rest: dict[str, Any], hot: dict[str, Any]) -> None:
    """Appends every hot column's value and takes out of `rest` what the column gives back."""
    for name in _WORDS:
        value = fields.get(name)
        if type(value) is not str:
            hot[name]("")
        elif 0 < len(value) <= NAME_CHARS_MAX:
            del rest[name]
            hot[name](value)
        else:
            hot[name](value[:NAME_CHARS_MAX])
    for name, chars_max in _TEXT_CHARS.items():
        value = fields.get(name)
        if type(value) is not str:
            hot[name]("")
        elif 0 < len(value) <= chars_max:
            del rest[name]
            hot[name](value)
        else:
            hot[name](value[:chars_max])
    for name in _COUNTS:
        number = int_of(fields, name) if name in rest else 0
        if number:
            del rest[name]
        hot[name](number)
    usd = float_of(fields, "usd") if "usd" in rest else 0.0
    if usd and type(fields["usd"]) is float:
        del rest["usd"]
    hot["usd"](usd)


def _body(rest: dict[str, Any], days: int, contents: dict[str, tuple[str, int]]) -> str:
    raw = _JSON.encode(rest)
    if len(raw) >= texts.LONG_CHARS_MIN or b'"$content"' in raw:

        def keep(key: str, text: str) -> None:
            known = contents.get(key)
            longest = max(known[1], days) if known and FOREVER not in (known[1], days) else days
            contents[key] = (text, FOREVER if known and known[1] == FOREVER else longest)

        # Through JSON first, so that keys and values are what they will be when they are read.
        raw = _JSON.encode(texts.lift(_PLAIN.decode(raw), keep))
    return raw.decode()


def bodies(raw: Iterable[str]) -> list[dict[str, Any]]:
    """The bodies of events, references still in them."""
    return [_PLAIN.decode(body) if body else {} for body in raw]


def referred(raw: Sequence[str], decoded: Sequence[dict[str, Any]]) -> set[str]:
    """The hashes of all texts that these bodies need."""
    found: set[str] = set()
    for text, body in zip(raw, decoded, strict=True):
        if '"$content"' in text:
            found |= texts.references(body)
    return found


def events_of(
    columns: dict[str, Sequence[Any]], found: dict[str, str], decoded: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Whole events, each with its `position`, from the columns of EVENT_COLUMNS, the decoded bodies
    and the texts they refer to."""
    common = zip(*(columns[name] for name in COMMON), strict=True)
    hot = zip(*(columns[name] for name in _HOT), strict=True)
    events = []
    rest = zip(common, hot, columns["at"], columns["body"], decoded, strict=True)
    for values, hot_values, at, raw, body in rest:
        event = dict(zip(COMMON, values, strict=True))
        event.update((name, value) for name, value in zip(_HOT, hot_values, strict=True) if value)
        event.update(texts.restore(body, found) if '"$content"' in raw else body)
        event["position"] = position_of(at, event["recorder"], event["seq"], event["agent"])
        events.append(event)
    return events
