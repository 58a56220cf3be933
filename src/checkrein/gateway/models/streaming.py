"""A model's answer that streams through: judged, screened and recorded while it flows."""

import asyncio
from typing import Any

import msgspec

from checkrein.gateway.models import reading, sse
from checkrein.gateway.models.calls import Item, Outcome, Proposed
from checkrein.gateway.models.reading import failed
from checkrein.gateway.models.screen import Screen
from checkrein.gateway.models.speech import DONE, Speech
from checkrein.gateway.models.tools import Proposals
from checkrein.gateway.models.turn import ODD, ProviderError, Turn
from checkrein.gateway.models.upstream import Reply
from checkrein.gateway.types import Refusal
from checkrein.gateway.wire import Answer

_encode = msgspec.json.Encoder().encode
KEEP_ALIVE_S = 15.0
_OF_ERRORS = ("error", "code", "message", "param", "sequence_number", "request_id")
_DONE_EVENT = sse.written("", DONE)


class Streaming:
    """One answer. `run` returns when it is whole; raises Refusal when it is not."""

    def __init__(
        self, turn: Turn, screen: Screen, speech: Speech, proposals: Proposals, answer: Answer
    ) -> None:
        self._turn, self._screen, self._speech = turn, screen, speech
        self._proposals, self._answer = proposals, answer
        self._gathering = turn.gathering = speech.exchange.gathering()
        self._flow = speech.flow(screen, proposals.holds(turn.visit))
        self._parser = sse.Parser()
        self._complete = False
        self._head: dict[str, str] = {}
        self._key = b""
        self._upstream = ""

    async def run(self, reply: Reply, head: dict[str, str]) -> None:
        self._upstream = name = reply.upstream.name
        self._key = reply.key.encode()
        self._head = head | {"content-type": "text/event-stream; charset=utf-8"}
        self._head.setdefault("cache-control", "no-cache")
        body = reading.pieces(
            reply.response, name, reply.upstream.chunk_s, reading.STREAM_BYTES_MAX
        )
        async for data in body:
            try:
                events = self._parser.feed(data)
            except sse.TooLong as error:
                raise failed(name, f"sends too much at once: {error}") from error
            if events:
                await self._events(events)
            if self._complete:
                break
        if not self._complete:
            if self._parser.open or not self._flow.ended:
                raise failed(name, "ended its answer before it was whole")
            self._finish()
        if not self._answer.begun:
            await self._answer.begin(200, self._head)
        await reading.drain(reply.response)
        await self._answer.end()

    async def _events(self, events: list[sse.Event]) -> None:
        out: list[bytes] = []
        named, gathering, flow = self._speech.named, self._gathering, self._flow
        for name, data in events:
            if data == DONE:
                flow.ended = self._complete = True
                out.append(_DONE_EVENT)
                break
            if not data:
                out.append(sse.KEEP_ALIVE)
                continue
            item = self._item(data)
            if item.get("type") == "error" or (item.get("error") and not item.get("choices")):
                out.append(sse.written("error" if named else "", _encode(_error_in(item))))
                self._failed(item)
                break
            try:
                if gathering.item(item):
                    self._turn.call.first_token()
                items = flow.take(name, item)
                if flow.waiting:
                    await self._send(out)
                    items += await self._settled()
            except ODD as error:
                raise self._odd(error) from error
            for one in items:
                out.append(sse.written(str(one.get("type", name)) if named else "", _encode(one)))
            if named and flow.ended:
                self._complete = True
                break
        if self._complete and not self._turn.ended:
            self._finish()
        await self._send(out)

    def _item(self, data: bytes) -> Item:
        try:
            item: Any = reading.value_of(data, self._key)
        except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
            why = f"streams what is not JSON ({error!r:.200})"
            raise failed(self._upstream, why) from error
        if not isinstance(item, dict):
            raise failed(self._upstream, "streams what is no JSON object")
        return item

    async def _settled(self) -> list[Item]:
        """What became of the calls that are whole, and what was held back behind them."""
        items: list[Item] = []
        for call in list(self._flow.waiting):
            items += self._flow.settle(call, await self._judged(call))
        return items + self._flow.resume()

    async def _judged(self, call: Proposed) -> Outcome:
        """Waits as long as it takes; the connection is kept awake."""
        turn = self._turn
        judging = asyncio.ensure_future(
            self._proposals.judge(turn.visit, call, turn.asked.tools, self._screen)
        )
        try:
            while True:
                done, _ = await asyncio.wait((judging,), timeout=KEEP_ALIVE_S)
                if done:
                    return judging.result()
                await self._send([sse.KEEP_ALIVE])
        finally:
            if not judging.done():
                judging.cancel()
                await asyncio.wait((judging,))

    async def _send(self, out: list[bytes]) -> None:
        if not out:
            return
        if not self._answer.begun:
            await self._answer.begin(200, self._head)
        await self._answer.piece(b"".join(out) if len(out) > 1 else out[0])
        out.clear()

    def _odd(self, error: Exception) -> Refusal:
        return failed(self._upstream, f"streams what cannot be read ({error!r:.200})")

    def _failed(self, item: Item) -> None:
        """The provider says in its stream that it cannot go on."""
        error = item.get("error")
        said = error if isinstance(error, dict) else item
        why = str(said.get("message") or said.get("type") or "an error")[:500]
        self._complete = True
        self._turn.broke(ProviderError(why))
        self._turn.visit.passed("failed", f"the provider broke off its answer: {why}")

    def _finish(self) -> None:
        """The answer is whole: recorded before its last piece goes out, since whoever has that may
        hang up."""
        turn = self._turn
        try:
            said = self._gathering.answer()
        except ODD as error:
            raise self._odd(error) from error
        turn.done(said)
        if turn.visit.announced:
            self._proposals.remember(turn.visit, said.tool_calls)
        turn.visit.passed("ok")


def _error_in(item: Item) -> Item:
    """An event that tells an error, and nothing besides that could be taken for an answer."""
    told = {name: item[name] for name in _OF_ERRORS if name in item}
    return {"type": "error"} | told if "type" in item else told
