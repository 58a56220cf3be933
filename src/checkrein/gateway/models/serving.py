"""One request to a model, from the agent's bytes to the end of the answer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from checkrein.events import strict
from checkrein.events.joining import OUR_KEYS
from checkrein.gateway.gate import Gate
from checkrein.gateway.models import headers as heads
from checkrein.gateway.models import reading
from checkrein.gateway.models.reading import MARK, failed, value_of
from checkrein.gateway.models.screen import Screen
from checkrein.gateway.models.speech import Provider, Speech, Way, way_of
from checkrein.gateway.models.streaming import Streaming
from checkrein.gateway.models.tools import Proposals
from checkrein.gateway.models.turn import ODD, ProviderError, Turn
from checkrein.gateway.models.upstream import Asked, Reply, Upstreams
from checkrein.gateway.settings import Upstream
from checkrein.gateway.types import UNNAMED, Refusal
from checkrein.gateway.visit import Visit
from checkrein.gateway.wire import Answer, Request, first_of
from checkrein.policy.rulebook import book_of
from checkrein.sdk.calls import marked
from checkrein.sdk.errors import Denied
from checkrein.sdk.instruments import exchange

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_SHOWN_CHARS = 2_000
_JUDGED = frozenset({
    "background", "functions", "input", "instructions", "max_completion_tokens",
    "max_output_tokens", "max_tokens", "mcp_servers", "messages", "model", "n", "prompt", "stream",
    "system", "tools", "web_search_options",
})  # fmt: skip
"""What is looked at in a request. Some servers take no notice of the case of a name."""


class Serving:
    """Both providers' endpoints. On the gateway's loop."""

    def __init__(self, gate: Gate, upstreams: Upstreams) -> None:
        self._gate = gate
        self._upstreams = upstreams
        self._proposals = Proposals(gate)

    async def openai(self, gate: Gate, request: Request, answer: Answer) -> None:
        await self._serve("openai", request, answer)

    async def anthropic(self, gate: Gate, request: Request, answer: Answer) -> None:
        await self._serve("anthropic", request, answer)

    async def _serve(self, provider: Provider, request: Request, answer: Answer) -> None:
        """Raises Refusal before the answer has begun."""
        way = way_of(provider, request.method, request.path)
        if any(key in request.query for key in OUR_KEYS):
            raise Refusal(400, "bad_request", "a key was sent in the address: it goes in a header")
        if not way.asks:
            await request.body(0)
            await first_of(self._look(provider, way, request, answer), request.gone())
            return
        await self._gate.caller(request.headers, provider)  # nobody's body is not even read
        found = _read(await request.body())
        if way.speech is None:
            work = self._count(provider, way, request, answer, found)
        else:
            work = self._model(provider, way, way.speech, request, answer, found)
        await first_of(work, request.gone())

    # -- model calls --------------------------------------------------------------------------

    async def _model(
        self, provider: Provider, way: Way, speech: Speech, request: Request, answer: Answer,
        found: strict.Strict,
    ) -> None:  # fmt: skip
        try:
            async with self._gate.visit(request.headers, provider) as visit:
                screen = self._gate.screen_for(visit)
                if screen.active:
                    visit.ran("redact")
                visit.facts["redacted"] = screen.counts  # as they are when the passage is told
                await self._judged(visit, screen, way, speech, request, answer, found)
        except Refusal as refusal:
            if not answer.begun:
                raise
            await answer.end(speech.broken(refusal))

    async def _judged(
        self, visit: Visit, screen: Screen, way: Way, speech: Speech, request: Request,
        answer: Answer, found: strict.Strict,
    ) -> None:  # fmt: skip
        given: dict[str, Any] = found.value
        body, upstream = self._routed(visit, given)
        asked, provider_tools = _asked(speech, body)  # the guard hears what the agent said
        screens = screen.active or self._gate.known.within(found.encoded)
        sent = screen.request(body) if screens else body
        if self._proposals.waits(visit.run):
            self._proposals.heard(visit, speech.results(given))
        if provider_tools:
            visit.facts["provider_tools"] = provider_tools[:50]
        call = await visit.begin_model(asked)
        visit.facts["requested_model"] = str(given.get("model") or "")
        turn = Turn(visit, call, asked)
        try:
            if call.directives:
                sent = speech.exchange.direct(sent, [marked(text) for text in call.directives])
            raw = found.encoded if sent is given else _encode(sent)
            asking = Asked("POST", way.path, request.query, request.headers, raw)
            reply = await self._upstreams.ask(upstream, asking, visit.facts)
            self._gate.known.learn(reply.key)
            try:
                await self._answered(turn, screen, speech, reply, answer)
            finally:
                reply.response.close()
        except BaseException as error:
            turn.broke(error)
            raise

    def _routed(self, visit: Visit, body: dict[str, Any]) -> tuple[dict[str, Any], Upstream]:
        """The request and its upstream, by the pact's `route`."""
        run = visit.run
        name = str(visit.protocol)
        route = None
        if run.seat.pact.route:
            route = run.seat.routed(str(body.get("model") or ""), run.world.monotonic_ns())
        if route is None:
            return body, self._upstreams.named(name, name)
        if route.model:
            body = body | {"model": route.model}
        return body, self._upstreams.named(route.upstream or name, name)

    async def _answered(
        self, turn: Turn, screen: Screen, speech: Speech, reply: Reply, answer: Answer
    ) -> None:
        response = reply.response
        _no_redirect(reply)
        if response.status >= 400:
            data = await self._error(reply)
            turn.broke(ProviderError(f"{response.status}: {_words(data)}"))
            turn.visit.passed("failed", f"the provider answered {response.status}")
            await answer.whole(response.status, data, _json_head(reply))
            return
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream" and turn.asked.stream:
            head = heads.back(response.headers.items(), reply.key)
            await Streaming(turn, screen, speech, self._proposals, answer).run(reply, head)
        elif kind == "application/json" or kind.endswith("+json"):
            await self._whole(turn, screen, speech, reply, answer)
        else:
            raise failed(reply.upstream.name, f"answers with {kind[:80]!r} where JSON is due")

    async def _whole(
        self, turn: Turn, screen: Screen, speech: Speech, reply: Reply, answer: Answer
    ) -> None:
        name = reply.upstream.name
        value = await _object(reply)
        try:
            said = speech.exchange.answer(value)
            turn.done(said)
            if screen.active:
                value = speech.screen(value, screen)
            settled = [
                (one, await self._proposals.judge(turn.visit, one, turn.asked.tools, screen))
                for one in speech.proposed(value)
            ]
            if settled:
                speech.settle(value, settled)
        except ODD as error:
            raise failed(name, f"answers with what cannot be read ({error!r:.200})") from error
        if turn.visit.announced:
            self._proposals.remember(turn.visit, said.tool_calls)
        turn.visit.passed("ok")
        await answer.whole(reply.response.status, _encode(value), _json_head(reply))

    async def _error(self, reply: Reply) -> bytes:
        """A provider's error as the agent may see it: its own JSON, or its words in a shape that
        clients read. Never the real key, whatever the provider repeats."""
        data = await _body(reply)
        try:
            value = value_of(data, reply.key.encode())
        except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            error = {
                "type": "upstream_error",
                "message": data[:_SHOWN_CHARS].decode(errors="replace"),
            }
            value = {"type": "error", "error": error}
        return _encode(value)

    # -- what is no model's call --------------------------------------------------------------

    async def _count(
        self, provider: Provider, way: Way, request: Request, answer: Answer, found: strict.Strict
    ) -> None:
        """Counts a request's tokens: nothing is answered by a model, and yet its text leaves."""
        async with self._gate.visit(request.headers, provider) as visit:
            await visit.run.hold.wait_async()
            body, upstream = self._routed(visit, found.value)
            model = str(body.get("model") or UNNAMED)
            visit.facts |= {"kind": "model", "name": "count_tokens", "requested_model": model}
            forbidding = book_of(visit.run.seat.pact).forbids_model(model)
            if forbidding is not None:
                why = f"the model `{model[:100]}` is not in the pact `{forbidding.pact}`"
                raise visit.refusal(Denied(why, action="count_tokens", rule="models"))
            screen = self._gate.screen_for(visit)
            screens = screen.active or self._gate.known.within(found.encoded)
            raw = found.encoded if body is found.value and not screens else (
                _encode(screen.request(body))
            )  # fmt: skip
            asking = Asked("POST", way.path, request.query, request.headers, raw)
            await self._pass(upstream, asking, visit.facts, answer)

    async def _look(self, provider: Provider, way: Way, request: Request, answer: Answer) -> None:
        """What needs no run: which models there are."""
        await self._gate.caller(request.headers)
        asking = Asked("GET", way.path, request.query, request.headers, None)
        await self._pass(self._upstreams.named(provider, provider), asking, {}, answer)

    async def _pass(
        self, upstream: Upstream, asking: Asked, facts: dict[str, Any], answer: Answer
    ) -> None:
        reply = await self._upstreams.ask(upstream, asking, facts)
        try:
            _no_redirect(reply)
            if reply.response.status >= 400:
                data = await self._error(reply)
            else:
                data = _encode(await _object(reply))
            await answer.whole(reply.response.status, data, _json_head(reply))
        finally:
            reply.response.close()


def _read(raw: bytes) -> strict.Strict:
    """Raises Refusal unless it is one JSON object that can be read in one way only."""
    try:
        found = strict.read(raw)
    except strict.NotStrict as error:
        raise Refusal(400, "bad_request", f"the request cannot be judged: {error}") from error
    value = found.value
    if not isinstance(value, dict):
        raise Refusal(400, "bad_request", "the request cannot be judged: it is no JSON object")
    for name in value:
        if name.casefold() != name and name.casefold() in _JUDGED:
            why = f"a model server may read {name[:40]!r} as `{name.casefold()}`"
            raise Refusal(400, "bad_request", f"the request cannot be judged: {why}")
    if not isinstance(value.get("model"), str | None):
        raise Refusal(400, "bad_request", "the request cannot be judged: `model` is no text")
    if value.get("background"):
        raise Refusal(
            400, "bad_request", "`background` is not served here: its answer would come by a way "
            "on which its tool calls could not be judged",
        )  # fmt: skip
    return found


def _asked(speech: Speech, body: Mapping[str, Any]) -> tuple[exchange.Request, list[str]]:
    try:
        asked = speech.exchange.request(body)
        return replace(asked, model=body.get("model") or UNNAMED), speech.provider_tools(body)
    except ODD as error:
        raise Refusal(
            400, "bad_request", f"the request cannot be judged: it is none of this endpoint's "
            f"({error!r:.200})",
        ) from error  # fmt: skip


async def _body(reply: Reply) -> bytes:
    """The whole answer, without the real key. Raises Refusal."""
    data = await reading.whole(reply.response, reply.upstream.name, reply.upstream.chunk_s)
    if reply.key and (key := reply.key.encode()) in data:
        data = data.replace(key, MARK)
    return data


async def _object(reply: Reply) -> dict[str, Any]:
    """A good answer's body. Raises Refusal."""
    data, upstream = await _body(reply), reply.upstream.name
    try:
        value = value_of(data, reply.key.encode())
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        raise failed(upstream, f"answers with what is not JSON ({error!r:.200})") from error
    if not isinstance(value, dict) or strict.too_deep(value, strict.DEPTH_MAX):
        raise failed(upstream, "answers with no JSON object, or one nested too deep")
    return value


def _no_redirect(reply: Reply) -> None:
    if 300 <= reply.response.status < 400:
        raise failed(
            reply.upstream.name, f"answers {reply.response.status}: redirects are not followed, "
            "since they lead where nobody has allowed to go",
        )  # fmt: skip


def _json_head(reply: Reply) -> dict[str, str]:
    return heads.back(reply.response.headers.items(), reply.key) | {
        "content-type": "application/json"
    }


def _words(data: bytes) -> str:
    """What an error says, for the record."""
    try:
        value = _decode(data)
        error = value.get("error", value)
        return str(error.get("message", error))[:500]
    except (msgspec.MsgspecError, UnicodeError, AttributeError):
        return data[:500].decode(errors="replace")
