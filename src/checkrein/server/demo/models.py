"""A model server that plays scripts over the real OpenAI and Anthropic protocols, on loopback.

Which script answers is said, first found, by the header `x-scripted`, by the API key
(`OPENAI_API_KEY=scripted:loops`) or by the model's name (`scripted:loops`), or by what is said
(`scripts.SPOKEN`); so a program needs no change to be played to. Without any, `default` answers.
Run alone, it prints its URL:

    python -m checkrein.server.demo.models --port 0
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from checkrein.server.demo import anthropic_wire, openai_wire
from checkrein.server.demo.replies import Reply, Script, Turn
from checkrein.server.demo.scripts import SCRIPTS, SPOKEN

BODY_BYTES_MAX = 32 * 1024 * 1024
START_SECONDS_MAX = 20.0

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Wire:
    """One protocol: how its requests are read and its replies written."""

    turn: Callable[[dict[str, Any], int], Turn]
    body: Callable[[Turn, Reply], dict[str, Any]]
    stream: Callable[[Turn, Reply, dict[str, Any]], Iterator[bytes]]
    error: Callable[[Reply], dict[str, Any]]


_CHAT = Wire(
    openai_wire.chat_turn, openai_wire.chat_body, openai_wire.chat_stream, openai_wire.error_body
)
_RESPONSES = Wire(
    openai_wire.responses_turn,
    openai_wire.responses_body,
    openai_wire.responses_stream,
    openai_wire.error_body,
)
_MESSAGES = Wire(
    anthropic_wire.messages_turn,
    anthropic_wire.messages_body,
    anthropic_wire.messages_stream,
    anthropic_wire.error_body,
)
_WIRES = {"/chat/completions": _CHAT, "/responses": _RESPONSES, "/messages": _MESSAGES}


class ModelApp:
    """The ASGI application. `scripts` maps names to scripts; an unknown name answers 404."""

    def __init__(self, scripts: Mapping[str, Script], latency_s: float = 0.0) -> None:
        self.scripts = scripts
        self.latency_s = latency_s

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        raw = await _body_of(receive)
        path = str(scope["path"]).rstrip("/")
        try:
            body = json.loads(raw or b"{}")
        except ValueError as error:
            await _answer(send, 400, {"error": {"message": f"the body is not JSON: {error}"}})
            return
        if path.endswith("/embeddings"):
            await _answer(send, 200, openai_wire.embeddings_body(body))
            return
        wire = next((w for ending, w in _WIRES.items() if path.endswith(ending)), None)
        if wire is None:
            await _answer(send, 404, {"error": {"message": f"nothing is served at {path}"}})
            return
        await self._play(wire, body, headers, raw, send)

    async def _play(
        self, wire: Wire, body: dict[str, Any], headers: dict[str, str], raw: bytes, send: Send
    ) -> None:
        turn = wire.turn(body, int(headers.get("x-stainless-retry-count", "0") or 0))
        name = script_name(headers, turn.model)
        if name == "default":
            name = next((spoken for words, spoken in SPOKEN.items() if words.encode() in raw), name)
        script = self.scripts.get(name)
        if script is None:
            missing = Reply(status=404, error=f"there is no script {name!r}")
            await _answer(send, 404, wire.error(missing))
            return
        reply = script(turn)
        await asyncio.sleep(self.latency_s if reply.latency_s is None else reply.latency_s)
        if reply.status != 200:
            after = (
                [] if reply.retry_after_s is None else [("retry-after", str(reply.retry_after_s))]
            )
            await _answer(send, reply.status, wire.error(reply), after)
        elif body.get("stream"):
            await _stream(send, wire.stream(turn, reply, body), reply.pace_s)
        else:
            await _answer(send, 200, wire.body(turn, reply))


def script_name(headers: Mapping[str, str], model: str) -> str:
    key = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
    for source in ("scripted:" + headers.get("x-scripted", ""), key, model):
        if source.startswith("scripted:") and (name := source.removeprefix("scripted:")):
            return name
    return "default"


async def _body_of(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body") or len(body) > BODY_BYTES_MAX:
            return body


async def _answer(
    send: Send, status: int, body: dict[str, Any], more: list[tuple[str, str]] | None = None
) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"req_scripted")]
    headers += [(k.encode(), v.encode()) for k, v in more or ()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _stream(send: Send, events: Iterator[bytes], pace_s: float) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"x-request-id", b"req_scripted")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(pace_s)
    await send({"type": "http.response.body", "body": b""})


class ModelServer:
    """The server in a thread of this process; a context manager. `url` has no trailing path:
    OpenAI clients take `url + "/v1"`, Anthropic's takes `url`."""

    def __init__(
        self, scripts: Mapping[str, Script] | None = None, latency_s: float = 0.0, port: int = 0
    ) -> None:
        # With its protocol named, or asyncio leaves Nagle on and each answer waits 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            ModelApp(SCRIPTS if scripts is None else scripts, latency_s),
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="scripted-models", daemon=True)

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> "ModelServer":
        # The listening socket takes connections from here on; uvicorn answers when it is up.
        self._socket.listen(128)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_SECONDS_MAX)
        self._socket.close()

    def join(self) -> None:
        self._thread.join()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="checkrein.server.demo.models", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each answer")
    options = parser.parse_args(argv)
    server = ModelServer(latency_s=options.latency_ms / 1000, port=options.port)
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt), server:
        server.join()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
