"""One model call on its way: from the request that was let through to the end of its answer."""

import json
from typing import Any

from checkrein.sdk import quiet
from checkrein.sdk.calls import ModelCall
from checkrein.sdk.instruments.exchange import Answer, Endpoint, Request, estimated

UNPARSED_BYTES_MAX = 8 * 1024 * 1024
"""Of a body that the agent reads as bytes, so much is kept to be read by us; more is not."""


class Flow:
    """Ends its call exactly once, whichever end comes first. No method raises."""

    __slots__ = (
        "_call",
        "_ended",
        "_endpoint",
        "_gathering",
        "_kept",
        "_kept_bytes",
        "_request",
        "parsing",
        "reading",
    )  # fmt: skip

    def __init__(self, call: ModelCall, endpoint: Endpoint, request: Request) -> None:
        self._call = call
        self._endpoint = endpoint
        self._request: Request | None = request
        self._gathering = endpoint.gathering()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._ended = False
        self.parsing = False
        """A stream of the client's own reads the response: its items come by `item`."""
        self.reading = False
        """That stream is just being read, and will say how it ended."""

    def item(self, item: Any) -> None:
        with quiet.quiet("instruments: reading a stream"):
            if self._gathering.item(item):
                self._call.first_token()

    def bytes(self, chunk: bytes) -> None:
        """A piece of a body that the agent may read by itself."""
        if not self.parsing and self._kept_bytes + len(chunk) <= UNPARSED_BYTES_MAX:
            self._kept.append(chunk)
            self._kept_bytes += len(chunk)

    def whole(self, result: Any) -> None:
        """The answer came in one piece: the client's object, or parsed JSON."""
        answer = Answer()
        with quiet.quiet("instruments: reading an answer"):
            answer = self._endpoint.answer(result)
        self.done(answer)

    def exhausted(self) -> None:
        """The stream was read to its end."""
        answer = Answer()
        with quiet.quiet("instruments: reading a stream"):
            answer = self._gathering.answer()
        self.done(answer)

    def closed(self) -> None:
        """The response is closed: read by the agent itself, or left in the middle of a stream."""
        if self._ended or self.reading:
            return
        if self.parsing or not self._kept:
            self._left()
            return
        body = b"".join(self._kept)
        try:
            if body.lstrip()[:1] == b"{":
                self.whole(json.loads(body))
                return
            for line in body.splitlines():
                if line.startswith(b"data:") and line[5:].strip()[:1] == b"{":
                    self.item(json.loads(line[5:]))
        except ValueError as error:
            quiet.fault("instruments: reading a body", error)
        self.exhausted()

    def _left(self) -> None:
        answer = Answer()
        with quiet.quiet("instruments: reading a stream"):
            answer = self._gathering.answer()
        answer.finish_reason = answer.finish_reason or "closed"
        self.done(answer)

    def done(self, answer: Answer) -> None:
        if self._ended:
            return
        self._ended = True
        read, written = estimated(self._request, answer)
        self._request = None
        self._kept.clear()
        self._call.end(
            answer.content,
            answer.tool_calls,
            input_tokens=read,
            output_tokens=written,
            cached_tokens=answer.cached_tokens,
            reasoning_tokens=answer.reasoning_tokens,
            finish_reason=answer.finish_reason,
            model=answer.model,
            fingerprint=answer.fingerprint,
            reasoning=answer.reasoning,
        )

    def fail(self, error: BaseException) -> None:
        if not self._ended:
            self._ended = True
            self._request = None
            self._call.fail(error)
