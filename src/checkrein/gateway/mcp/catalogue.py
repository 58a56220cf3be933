"""What one server lists: its tools, held against what they were when they were first seen."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from checkrein.gateway.mcp import headers, rpc
from checkrein.gateway.mcp.link import Link, failed
from checkrein.gateway.mcp.pins import Pins, Seen
from checkrein.gateway.mcp.rpc import Message
from checkrein.world import World

TOOLS_MAX = 2_000
PAGES_MAX = 64
RELIST_S = 10.0
"""A list that is older is asked for anew beside a call: so a change without notice is found."""
UNKNOWN_S = 1.0
"""So often at most a call of an unknown tool makes us ask again."""
_numbers = itertools.count(1)

Tell = Callable[[list[Seen]], None]
"""Is told of tools that have just been found to differ."""


class Catalogue:
    """The tools of one server as one client sees them. `spoken` is told of whichever agent uses
    them, and of their names."""

    def __init__(
        self, server: str, trust: bool, pins: Pins, world: World,
        spoken: Callable[[str, frozenset[str]], None] = lambda agent, names: None,
    ) -> None:  # fmt: skip
        self.server, self._trust, self._pins, self._world = server, trust, pins, world
        self._spoken = spoken
        self.tools: dict[str, Seen] = {}
        self._names: frozenset[str] = frozenset()
        self._listed_ns: int | None = None
        self._stale = False
        self._listing = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None

    def outdated(self) -> None:
        """The server says that its list has changed: the next call asks for it first."""
        self._stale = True

    async def page(self, page: Any, whose: tuple[str, str], whole: bool) -> list[Seen]:
        """Takes one page of a list. `whole`: there is no other, so what is not on it is gone.
        Raises Refusal."""
        given = page.get("tools") if isinstance(page, dict) else None
        named = [each for each in given if _is_tool(each)] if isinstance(given, list) else []
        if len(named) + (0 if whole else len(self.tools)) > TOOLS_MAX:
            raise failed(self.server, f"it lists over {TOOLS_MAX} tools")
        seen = await self._pins.look(self.server, named, self._trust, *whose)
        if whole:
            self._take(seen)
        else:
            self.tools |= {each.tool["name"]: each for each in seen}
        self._names = frozenset(self.tools)
        self._spoken(whose[0], self._names)
        return seen

    async def tool(
        self, name: str, link: Link, like: Message, whose: tuple[str, str], tell: Tell
    ) -> Seen | None:
        """The tool as it stands now; None: there is none. Asks the server when that is not known,
        or is no longer sure. Raises Refusal."""
        if self._listed_ns is None or self._stale:
            await self._list(link, like, whose, tell)
        age_s = (self._world.monotonic_ns() - (self._listed_ns or 0)) / 1e9
        if name not in self.tools and age_s > UNKNOWN_S:
            await self._list(link, like, whose, tell)
        elif age_s > RELIST_S and (self._beside is None or self._beside.done()):
            self._beside = asyncio.ensure_future(self._quietly(link, like, whose, tell))
        self._spoken(whose[0], self._names)
        return self.tools.get(name)

    def held(self, seen: Seen) -> str:
        """Why a tool may not be shown or called; "" when it may."""
        return self._pins.held(self.server, seen)

    def close(self) -> None:
        if self._beside is not None:
            self._beside.cancel()

    async def _quietly(self, link: Link, like: Message, whose: tuple[str, str], tell: Tell) -> None:
        """Beside a call: what goes wrong shows at the next one."""
        try:
            await self._list(link, like, whose, tell)
        except Exception:
            self._stale = True

    async def _list(self, link: Link, like: Message, whose: tuple[str, str], tell: Tell) -> None:
        begun = self._world.monotonic_ns()
        async with self._listing:
            if self._listed_ns is not None and self._listed_ns > begun:
                return  # somebody else has asked meanwhile
            self._stale = False
            tools: list[Any] = []
            cursor: str | None = None
            for _ in range(PAGES_MAX):
                answer = await link.request(_asking(like, cursor), _nobody)
                if "error" in answer:
                    raise failed(self.server, f"it does not list its tools: {_said(answer)}")
                page = answer["result"]
                found = page.get("tools") if isinstance(page, dict) else None
                tools.extend(found if isinstance(found, list) else [])
                cursor = page.get("nextCursor") if isinstance(page, dict) else None
                if not isinstance(cursor, str) or len(tools) > TOOLS_MAX:
                    break
            seen = await self.page({"tools": tools}, whose, whole=True)
            tell([each for each in seen if each.news])

    def _take(self, seen: list[Seen]) -> None:
        self.tools = {each.tool["name"]: each for each in seen}
        self._listed_ns = self._world.monotonic_ns()


def _is_tool(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and bool(value["name"])


def _asking(like: Message, cursor: str | None) -> Message:
    """Asks for the list in the same revision as the client's own message."""
    meta = rpc.meta_of(like)
    params: dict[str, Any] = {}
    if headers.is_modern(like):
        params["_meta"] = {name: meta[name] for name in headers.ENVELOPE if name in meta}
    if cursor is not None:
        params["cursor"] = cursor
    ident = f"checkrein-{next(_numbers)}"
    return {"jsonrpc": "2.0", "id": ident, "method": "tools/list", "params": params}


def _said(answer: Message) -> str:
    told = answer.get("error")
    return str(told.get("message", ""))[:200] if isinstance(told, dict) else ""


async def _nobody(message: Message) -> None:
    """What a server says while we ask for ourselves is for nobody."""
