"""Which tools are what they were: trusted on first sight, held when they have changed.

Pins stand in the control bus, so that all gateways trust the same and a person's word reaches all.
What cannot be looked up is not trusted.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.tool_pins import TEXT_CHARS_MAX, ToolChange, ToolPin, differs, digests_of
from checkrein.bus.types import Bucket, BusError, Entry, WrongRevision
from checkrein.gateway.types import Refusal
from checkrein.world import World

RETRY_S = 0.5
ATTEMPTS_MAX = 5
AT_ONCE_MAX = 16
PINS_MAX = 50_000
SERVER_PINS_MAX = 8_000
"""Of one server: one that always has new tools is held to those."""
_log = logging.getLogger(__name__)

OpenBucket = Callable[[str], Awaitable[Bucket]]


class Seen(msgspec.Struct, frozen=True):
    """A tool as it is listed now. `news`: what has just been found out about it, to be told once.
    Whether it is held, `Pins.held` says: that may change at any time."""

    tool: dict[str, Any]
    digest: str
    news: str = ""


class Pins:
    """`open_bucket` None: nothing is kept beyond this process (tests, or no bus)."""

    def __init__(self, world: World, open_bucket: OpenBucket | None) -> None:
        self._world, self._open_bucket = world, open_bucket
        self._bucket: Bucket | None = None
        self._pins: dict[str, tuple[ToolPin, int]] = {}
        self._counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Raises BusError."""
        if self._open_bucket is not None:
            self._bucket = await self._open_bucket(subjects.BUCKET_MCP_TOOLS)
            for entry in await self._bucket.entries():
                self._take(entry)

    async def follow(self) -> None:
        """Until cancelled."""
        while self._bucket is not None:
            try:
                async for entry in self._bucket.watch():
                    if entry.key:
                        self._take(entry)
            except BusError as error:
                _log.warning("following the pinned tools: %s", error)
            await self._world.sleep(RETRY_S)

    async def look(
        self, server: str, tools: Iterable[dict[str, Any]], trust: bool, agent: str, run_id: str
    ) -> list[Seen]:
        """How each tool that a server lists stands to what it was. With `trust` nothing is held.
        Raises Refusal when a tool not yet seen cannot be pinned."""
        slots = asyncio.Semaphore(AT_ONCE_MAX)

        async def one(tool: dict[str, Any]) -> Seen:
            digest, parts = digests_of(tool)
            known = self._pins.get(subjects.tool_key(server, tool["name"]))
            if known is not None and known[0].digest == digest:
                return Seen(tool, digest)
            change = known[0].changed if known is not None and not trust else None
            if change is not None and change.digest == digest:
                return Seen(tool, digest)
            async with slots:
                return await self._pinned(server, tool, digest, parts, trust, (agent, run_id))

        return list(await asyncio.gather(*(one(tool) for tool in tools)))

    def held(self, server: str, seen: Seen) -> str:
        """Why a tool may not be shown or called now; "" when it may."""
        known = self._pins.get(subjects.tool_key(server, seen.tool["name"]))
        if known is None:
            return "" if self._bucket is None else f"nobody has pinned {seen.tool['name']}"
        if known[0].digest == seen.digest:
            return ""
        change = known[0].changed
        same = change is not None and change.digest == seen.digest
        what = change.what if change is not None and same else ["definition"]
        return _why(known[0], what)

    async def _pinned(
        self, server: str, tool: dict[str, Any], digest: str, parts: dict[str, str], trust: bool,
        seen_by: tuple[str, str],
    ) -> Seen:  # fmt: skip
        """A tool not seen before is pinned; one that differs is noted as changed."""
        name, text = tool["name"], str(tool.get("description") or "")[:TEXT_CHARS_MAX]
        key, now = subjects.tool_key(server, name), self._world.now_ns()
        for _ in range(ATTEMPTS_MAX):
            known = self._pins.get(key)
            if known is None and len(self._pins) >= PINS_MAX:
                raise Refusal(503, "busy", f"over {PINS_MAX} tools are pinned: no other is let in")
            if known is None and self._counts[server] >= SERVER_PINS_MAX:
                raise Refusal(
                    503, "busy", f"{server} has listed over {SERVER_PINS_MAX} tools by now, and "
                    f"{name} is a new one", advice="ESCALATE",
                )  # fmt: skip
            if known is None:
                pin = ToolPin(
                    server=server, tool=name, digest=digest, parts=parts, description=text,
                    first_at=now,
                )  # fmt: skip
            elif known[0].digest == digest:
                return Seen(tool, digest)
            else:
                change = ToolChange(
                    digest=digest, parts=parts, what=differs(known[0].parts, parts),
                    description=text, at=now, agent=seen_by[0], run_id=seen_by[1],
                )  # fmt: skip
                pin = msgspec.structs.replace(known[0], changed=change)
                if trust:
                    pin = pin.approved("trust_changes", now)
            try:
                await self._write(key, pin, known[1] if known is not None else 0)
            except WrongRevision:
                await self._read(key)
                continue
            except (BusError, TimeoutError) as error:
                raise Refusal(
                    503, "guard_error", f"the tool {name} cannot be compared with what it was: "
                    f"{type(error).__name__}", advice="RETRYABLE",
                ) from error  # fmt: skip
            news = "" if pin.changed is None else _why(pin, pin.changed.what)
            return Seen(tool, digest, news)
        raise Refusal(503, "guard_error", f"the tool {name} changes faster than it can be noted")

    async def _write(self, key: str, pin: ToolPin, revision: int) -> None:
        if self._bucket is None:
            revision += 1
        elif revision:
            revision = await self._bucket.update(key, encode(pin), revision)
        else:
            revision = await self._bucket.create(key, encode(pin))
        self._keep(key, pin, revision)

    def _keep(self, key: str, pin: ToolPin, revision: int) -> None:
        if key not in self._pins:
            self._counts[pin.server] += 1
        self._pins[key] = (pin, revision)

    def _drop(self, key: str) -> None:
        known = self._pins.pop(key, None)
        if known is not None:
            self._counts[known[0].server] -= 1

    async def _read(self, key: str) -> None:
        if self._bucket is not None:
            entry = await self._bucket.get(key)
            if entry is None:
                self._drop(key)
            else:
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        if not entry.value:
            self._drop(entry.key)
            return
        known = self._pins.get(entry.key)
        if known is not None and known[1] > entry.revision:
            return
        try:
            self._keep(entry.key, decode(entry.value, ToolPin), entry.revision)
        except MessageError as error:
            _log.error("the pinned tool %s cannot be read: %s", entry.key, error)


def _why(pin: ToolPin, what: list[str]) -> str:
    return (
        f"the tool server {pin.server} has changed the {' and '.join(what) or 'parts'} of "
        f"its tool {pin.tool} since that was approved"
    )
