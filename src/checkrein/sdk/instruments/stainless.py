"""The clients of OpenAI and Anthropic are built alike: every call, whatever helper it came through,
passes one `request` of the base client, and every stream one `__stream__`. Those are wrapped.

A call is judged before anything is sent. It ends when its answer has been read: at once for a whole
one; for a stream when it is exhausted, fails, is closed or dropped.
"""

import copy
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from checkrein.sdk import quiet
from checkrein.sdk.calls import ModelCall, marked
from checkrein.sdk.instruments.announce import announce
from checkrein.sdk.instruments.exchange import Answer, Endpoint, Request
from checkrein.sdk.instruments.flow import Flow
from checkrein.sdk.instruments.patches import Patches

Find = Callable[[str, str], Endpoint | None]
_FLOW = "_checkrein_flow"


def apply(patches: Patches, package: str, find: Find) -> None:
    """Wraps a client package. `find(method, url)` says which endpoint a request is for, if any."""
    base, streaming = f"{package}._base_client", f"{package}._streaming"
    patches.wrap(base, "SyncAPIClient.request", lambda original: _sync_request(original, find))
    patches.wrap(base, "AsyncAPIClient.request", lambda original: _async_request(original, find))
    patches.wrap(streaming, "Stream.__stream__", _sync_stream)
    patches.wrap(streaming, "AsyncStream.__stream__", _async_stream)


def _sync_request(original: Any, find: Find) -> Any:
    def request(self: Any, cast_to: Any, options: Any, **more: Any) -> Any:
        endpoint = _endpoint(find, options)
        if endpoint is None:
            return original(self, cast_to, options, **more)
        asked, body = _asked(endpoint, options)
        call = ModelCall.begin(
            asked.provider, asked.model, asked.messages, asked.parameters, asked.tools, asked.stream
        )
        flow = Flow(call, endpoint, asked)
        try:
            announce(self, call, options)
            _direct(endpoint, call, options, body)
            result = original(self, cast_to, options, **more)
        except BaseException as error:
            flow.fail(error)
            raise
        _follow(flow, result)
        return result

    return request


def _async_request(original: Any, find: Find) -> Any:
    async def request(self: Any, cast_to: Any, options: Any, **more: Any) -> Any:
        endpoint = _endpoint(find, options)
        if endpoint is None:
            return await original(self, cast_to, options, **more)
        asked, body = _asked(endpoint, options)
        call = await ModelCall.abegin(
            asked.provider, asked.model, asked.messages, asked.parameters, asked.tools, asked.stream
        )
        flow = Flow(call, endpoint, asked)
        try:
            announce(self, call, options)
            _direct(endpoint, call, options, body)
            result = await original(self, cast_to, options, **more)
        except BaseException as error:
            flow.fail(error)
            raise
        _follow(flow, result)
        return result

    return request


def _endpoint(find: Find, options: Any) -> Endpoint | None:
    with quiet.quiet("instruments: which endpoint"):
        return find(str(options.method).lower(), str(options.url))
    return None


def _asked(endpoint: Endpoint, options: Any) -> tuple[Request, dict[str, Any]]:
    """What is asked. A request that cannot be read is still judged and recorded, without detail."""
    body = options.json_data if isinstance(options.json_data, dict) else {}
    extra = getattr(options, "extra_json", None)
    with quiet.quiet("instruments: reading a request"):
        return endpoint.request(body | extra if isinstance(extra, dict) else body), body
    return Request("", str(body.get("model", "")), None, {}, (), bool(body.get("stream"))), body


def _direct(endpoint: Endpoint, call: ModelCall, options: Any, body: dict[str, Any]) -> None:
    if call.directives:
        with quiet.quiet("instruments: passing on a directive"):
            options.json_data = endpoint.direct(body, [marked(text) for text in call.directives])


def _follow(flow: Flow, result: Any) -> None:
    """Ends the call with a whole answer, or ties its end to the response that is still open."""
    try:
        response = getattr(result, "http_response", None)
        raw = response is not None
        if response is None:
            response = getattr(result, "response", None)
        if response is None or not hasattr(response, "iter_bytes"):
            flow.whole(result)
        elif raw and response.is_closed:
            flow.whole(response.json())
        else:
            _tie(flow, response)
            # A stream that is dropped unread ends its call, too.
            weakref.finalize(result, flow.closed).atexit = False
    except Exception as error:
        quiet.fault("instruments: reading an answer", error)
        flow.done(Answer())


def _tie(flow: Flow, response: Any) -> None:
    """The response carries its call with it; a stream made of it finds it there. Closing it ends
    the call, unless a stream is just being read and will know better how it ended."""
    setattr(response, _FLOW, flow)
    seen = weakref.ref(response)
    kind = type(response)

    def iter_bytes(*given: Any, **more: Any) -> Iterator[bytes]:
        for chunk in kind.iter_bytes(seen(), *given, **more):
            flow.bytes(chunk)
            yield chunk

    async def aiter_bytes(*given: Any, **more: Any) -> AsyncIterator[bytes]:
        async for chunk in kind.aiter_bytes(seen(), *given, **more):
            flow.bytes(chunk)
            yield chunk

    def close() -> None:
        try:
            kind.close(seen())
        finally:
            flow.closed()

    async def aclose() -> None:
        try:
            await kind.aclose(seen())
        finally:
            flow.closed()

    response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes
    response.close, response.aclose = close, aclose


def _sync_stream(original: Any) -> Any:
    def stream(self: Any) -> Iterator[Any]:
        # Made of a copy: a generator that referred to the stream would form a cycle with it, and a
        # dropped stream would wait for the garbage collector to end its call.
        alone = copy.copy(self)
        return _read(original(alone), alone.response)

    return stream


def _read(items: Any, response: Any) -> Iterator[Any]:
    flow: Flow | None = getattr(response, _FLOW, None)
    if flow is None:
        yield from items
        return
    flow.parsing = True
    try:
        while True:
            flow.reading = True
            try:
                item = next(items)
            except StopIteration:
                break
            finally:
                flow.reading = False
            flow.item(item)
            yield item
    except GeneratorExit:
        items.close()
        flow.closed()
        raise
    except BaseException as error:
        flow.fail(error)
        raise
    flow.exhausted()


def _async_stream(original: Any) -> Any:
    def stream(self: Any) -> AsyncIterator[Any]:
        alone = copy.copy(self)
        return _aread(original(alone), alone.response)

    return stream


async def _aread(items: Any, response: Any) -> AsyncIterator[Any]:
    flow: Flow | None = getattr(response, _FLOW, None)
    if flow is None:
        async for item in items:
            yield item
        return
    flow.parsing = True
    try:
        while True:
            flow.reading = True
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            finally:
                flow.reading = False
            flow.item(item)
            yield item
    except GeneratorExit:
        await items.aclose()
        flow.closed()
        raise
    except BaseException as error:
        flow.fail(error)
        raise
    flow.exhausted()
