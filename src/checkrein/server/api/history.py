"""Asking the archive: named queries over the events bus."""

from typing import Any

from checkrein.bus import subjects
from checkrein.bus.messages import Answer, MessageError, Query, decode, encode
from checkrein.bus.types import Bus, Unreachable

WAIT_S = 5.0
ROWS_MAX = 100_000


class HistoryError(Exception):
    """The archive refused the query: says why."""


class HistoryAway(HistoryError):
    """The archive did not answer. What is asked may be there all the same."""


class History:
    """A client of the role `archive`."""

    def __init__(self, bus: Bus, wait_s: float = WAIT_S) -> None:
        self._bus, self._wait_s = bus, wait_s

    async def rows(
        self, name: str, parameters: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """All rows of one query, however many messages they come in; at most ROWS_MAX. Parameters
        that are None or empty are left out. Raises HistoryAway, HistoryError."""
        asked = {key: value for key, value in (parameters or {}).items() if value not in (None, "")}
        limit = asked.get("limit", ROWS_MAX)
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._ask(name, asked)
            found += answer.rows
            if answer.next_after is None or not answer.rows or len(found) >= limit:
                return found[:limit]
            asked = {**asked, "after": answer.next_after}
            if "limit" in asked:
                asked["limit"] = limit - len(found)

    async def answers(self, wait_s: float = 1.0) -> bool:
        """True when the archive answers within `wait_s`."""
        try:
            query = encode(Query(name="runs", parameters={"limit": 1}))
            decode(await self._bus.request(subjects.history("runs"), query, wait_s), Answer)
        except (Unreachable, MessageError):
            return False
        return True

    async def _ask(self, name: str, parameters: dict[str, Any]) -> Answer:
        query = encode(Query(name=name, parameters=parameters))
        try:
            raw = await self._bus.request(subjects.history(name), query, self._wait_s)
            answer = decode(raw, Answer)
        except Unreachable as error:
            raise HistoryAway(f"the archive does not answer: {error}") from error
        except MessageError as error:
            raise HistoryError(f"the archive's answer to `{name}` is broken: {error}") from error
        if answer.error:
            raise HistoryError(answer.error)
        return answer
