"""Answers to named queries, cut to what one message carries.

An answer that is cut, or as long as was asked for, names where to go on: the last event's
`position`, for other rows how many were given, for a long text how many characters.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from checkrein.bus.messages import Answer, MessageError, Query, decode, encode
from checkrein.bus.types import Bus, BusError, Message
from checkrein.store import Store, StoreError, UnknownQuery
from checkrein.store.parameters import LIMIT_DEFAULT, PARAMETERS

_log = logging.getLogger(__name__)

QUERIES_WAITING_MAX = 64
ANSWER_BYTES_MAX = 900 * 1024
TEXT_CHARS_MAX = ANSWER_BYTES_MAX // 4

_BY_POSITION = frozenset({"events", "events_of_run", "events_of_task"})


class Questions:
    """Answers `history.QUERY`, several at once, on the threads of `reading`. `status()` is added to
    the answer of `counts`."""

    def __init__(
        self, bus: Bus, store: Store, reading: ThreadPoolExecutor,
        status: Callable[[], dict[str, Any]], group: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        self._bus, self._store, self._reading = bus, store, reading
        self._status, self._group = status, group
        self._waiting = 0

    async def take(self, message: Message) -> None:
        if self._waiting >= QUERIES_WAITING_MAX:
            await self._bus.respond(message, encode(Answer(error="the archive is busy; ask again")))
            return
        self._waiting += 1
        self._group.create_task(self._answer(message))

    async def _answer(self, message: Message) -> None:
        name = message.subject.split(".", 1)[1]
        try:
            query = msgspec.structs.replace(decode(message.data, Query), name=name)
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(
                self._reading, answer, self._store, query, self._status()
            )
        except MessageError as error:
            data = encode(Answer(error=str(error)))
        except Exception as error:
            _log.exception("archive: query %s failed", name)
            data = encode(Answer(error=f"query {name} failed: {error!r}"))
        finally:
            self._waiting -= 1
        with contextlib.suppress(BusError):
            await self._bus.respond(message, data)


def answer(store: Store, query: Query, status: dict[str, Any]) -> bytes:
    """Runs a query and packs the answer; refusals and failures become `Answer.error`."""
    try:
        found = _answer(store, query)
        if query.name == "counts":
            found = Answer(rows=[row | {"archive": status} for row in found.rows])
        return encode(found)
    except UnknownQuery as error:
        return encode(Answer(error=str(error)))
    except StoreError as error:
        return encode(Answer(error=f"the store failed: {error}"))


def _answer(store: Store, query: Query) -> Answer:
    parameters = dict(query.parameters)
    if query.name == "content":
        return _text(store, parameters)
    if query.name in _BY_POSITION:
        rows = store.query(query.name, parameters)
        kept = _fitting(rows)
        more = len(kept) < len(rows) or len(rows) == parameters.get("limit", LIMIT_DEFAULT)
        return Answer(rows=kept, next_after=kept[-1]["position"] if kept and more else None)
    skip = _skip(parameters)
    limited = "limit" in PARAMETERS.get(query.name, {})
    limit = parameters.get("limit", LIMIT_DEFAULT)
    if limited and type(limit) is int:
        parameters["limit"] = limit + skip
    rows = store.query(query.name, parameters)[skip:]
    kept = _fitting(rows)
    more = len(kept) < len(rows) or (limited and len(rows) == limit)
    return Answer(rows=kept, next_after=skip + len(kept) if kept and more else None)


def _skip(parameters: dict[str, Any]) -> int:
    after = parameters.pop("after", None)
    if after is not None and (type(after) is not int or after < 0):
        raise UnknownQuery(f"`after` is {after!r}, not a number that an answer gave")
    return after or 0


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the first rows as fit; the first in any case, its longest texts cut if need be."""
    used = 0
    for index, row in enumerate(rows):
        size = len(encode(row))
        if used + size > ANSWER_BYTES_MAX:
            return rows[:index] if index else [_cut(row)]
        used += size
    return rows


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """One row that is too long for a message: texts are cut ever shorter until it fits."""
    chars = TEXT_CHARS_MAX
    while chars > 100:
        row = {name: _shortened(value, chars) for name, value in row.items()}
        if len(encode(row)) <= ANSWER_BYTES_MAX:
            return row
        chars //= 2
    return {name: value for name, value in row.items() if not isinstance(value, dict | list)}


def _shortened(value: Any, chars: int) -> Any:
    if isinstance(value, str) and len(value) > chars:
        return value[:chars] + f" … cut, {len(value)} characters in all"
    if isinstance(value, list):
        return [_shortened(item, chars) for item in value]
    if isinstance(value, dict):
        return {name: _shortened(item, chars) for name, item in value.items()}
    return value


def _text(store: Store, parameters: dict[str, Any]) -> Answer:
    skip = _skip(parameters)
    rows = store.query("content", parameters)
    if not rows:
        return Answer()
    text = rows[0]["text"]
    part = text[skip : skip + TEXT_CHARS_MAX]
    after = skip + len(part)
    row = {"hash": rows[0]["hash"], "text": part, "from": skip, "chars": len(text)}
    return Answer(rows=[row], next_after=after if after < len(text) else None)
