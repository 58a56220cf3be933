"""A call tells our gateway which one it is, and nobody else."""

import importlib
from typing import Any

import anthropic
import openai
import pytest
from tests.recorded import Recorded, ambient

from checkrein.bus.identities import AGENT_KEY, RUN_KEY
from checkrein.events import types as events
from checkrein.events.joining import OUR_KEYS
from checkrein.sdk.instruments.announce import GATEWAY, is_gateway
from checkrein.sdk.traceparent import header_of

GATEWAY_URL = "http://127.0.0.1:4401"
ASK: Any = [{"role": "user", "content": "hello"}]
SAID: Any = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
SENT = ("x-checkrein-run", "x-checkrein-call", "x-checkrein-step", "traceparent")


class Upstream:
    """Whoever answers, with the headers that came there. The clients come with an httpx of theirs,
    so it is taken from them."""

    def __init__(self, client: Any) -> None:
        self.headers: list[dict[str, str]] = []
        base = importlib.import_module(client.__mro__[1].__module__)
        self._httpx = importlib.import_module(base.URL.__module__.partition(".")[0])

    def client(self, many: bool = False) -> Any:
        kind = self._httpx.AsyncClient if many else self._httpx.Client
        return kind(transport=self._httpx.MockTransport(self._answer))

    def _answer(self, request: Any) -> Any:
        self.headers.append(dict(request.headers))
        status = 500 if len(self.headers) == 1 and "fails-once" in str(request.url) else 200
        return self._httpx.Response(status, json=SAID, headers={"retry-after-ms": "1"})


def asked(url: str, key: str) -> list[dict[str, str]]:
    upstream = Upstream(openai.OpenAI)
    with openai.OpenAI(base_url=url, api_key=key, http_client=upstream.client()) as client:
        client.chat.completions.create(
            model="m", messages=ASK, extra_headers={"x-of-the-agent": "kept"}
        )
    return upstream.headers


def test_a_request_to_the_gateway_carries_the_calls_ids(
    record: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GATEWAY, GATEWAY_URL + "/")
    (headers,) = asked(f"{GATEWAY_URL}/openai/v1", "crr_1")
    (request,) = record.of(events.ModelRequest)
    assert headers["x-checkrein-call"] == request.call_id
    assert headers["x-checkrein-run"] == request.run_id
    assert headers["x-checkrein-step"] == str(request.step)
    assert headers["traceparent"] == header_of(request.task_id, request.run_id)
    assert headers["x-of-the-agent"] == "kept"


def test_a_request_that_is_tried_again_is_still_the_same_call(
    record: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GATEWAY, GATEWAY_URL)
    first, second = asked(f"{GATEWAY_URL}/fails-once/openai/v1", "k")
    assert first["x-checkrein-call"] == second["x-checkrein-call"]
    assert len(record.of(events.ModelRequest)) == 1


@pytest.mark.parametrize(
    ("gateway", "url", "key"),
    [
        (GATEWAY_URL, "http://127.0.0.1:4402/v1", "provider-key"),
        (GATEWAY_URL, "https://127.0.0.1:4401/v1", "provider-key"),
        ("", "http://provider.test/v1", "cra_mistaken"),
        ("", f"{GATEWAY_URL}/openai/v1", "provider-key"),
    ],
)
def test_nobody_else_is_told_our_ids(
    record: Recorded, monkeypatch: pytest.MonkeyPatch, gateway: str, url: str, key: str
) -> None:
    monkeypatch.setenv(GATEWAY, gateway)
    (headers,) = asked(url, key)
    assert not [name for name in SENT if name in headers]
    assert len(record.of(events.ModelRequest)) == 1


async def test_anthropics_client_says_it_too_with_a_key_of_ours(
    record: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GATEWAY, raising=False)
    upstream = Upstream(anthropic.AsyncAnthropic)
    async with anthropic.AsyncAnthropic(
        base_url=f"{GATEWAY_URL}/anthropic", api_key="cra_1", http_client=upstream.client(many=True)
    ) as client:
        await client.messages.create(model="m", max_tokens=5, messages=ASK)
    (request,) = record.of(events.ModelRequest)
    assert upstream.headers[0]["x-checkrein-call"] == request.call_id
    assert upstream.headers[0]["x-checkrein-run"] == ambient().run_id


def test_which_address_is_the_gateways() -> None:
    assert OUR_KEYS == (AGENT_KEY, RUN_KEY)
    assert is_gateway("http://gw:80/openai/v1", "k", "http://gw")
    assert not is_gateway("http://gw.evil.test/openai/v1", "k", "http://gw")
    assert is_gateway("http://gw/anthropic/v1/messages", "crr_1", "")
    assert not is_gateway("http://gw/v1/messages", "crr_1", "")
