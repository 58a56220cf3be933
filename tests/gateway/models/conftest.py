"""The model protocols of a gate, in front of a scripted model server, for real clients."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from checkrein.gateway.models.part import open_models
from checkrein.gateway.settings import Settings, Upstream
from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Call, Reply, Script, Turn
from tests.gateway.conftest import GateHouse, Gates

TOOLS = """\
pact: bot
job: test
tools:
  search: {kind: read}
  refund: {kind: irreversible, allow: args.cents <= 100, ask: args.cents > 50}
"""


CERTIFICATES = ssl.create_default_context()
"""Made once: it takes longer than most tests."""


@dataclass
class Served:
    """`url` is the gateway's; `key` the key of the agent `bot`."""

    house: GateHouse
    url: str
    key: str

    def openai(self, **more: Any) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=f"{self.url}/openai/v1",
            api_key=self.key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=CERTIFICATES),
            **more,
        )

    def anthropic(self, **more: Any) -> Any:
        import anthropic

        return anthropic.AsyncAnthropic(
            base_url=f"{self.url}/anthropic",
            api_key=self.key,
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(verify=CERTIFICATES),
            **more,
        )


Serve = Callable[..., AbstractAsyncContextManager[Served]]


def settings_for(url: str, **more: Any) -> Settings:
    """Both protocols at one upstream."""
    options = {"retries": 0, "timeout_s": 5.0, "chunk_s": 5.0} | more
    return Settings(
        models={
            "openai": Upstream(
                name="openai", protocol="openai", url=f"{url}/v1", key_env="REAL_OPENAI", **options
            ),
            "anthropic": Upstream(
                name="anthropic", protocol="anthropic", url=url, key_env="REAL_ANTHROPIC", **options
            ),
        }
    )


@pytest.fixture
def serve(gates: Gates, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`async with serve(url, pact=…) as served`: the gateway in front of an upstream."""
    monkeypatch.setenv("REAL_OPENAI", "sk-real-openai-key-0123456789")
    monkeypatch.setenv("REAL_ANTHROPIC", "sk-ant-real-key-0123456789")

    @asynccontextmanager
    async def serving(
        url: str = "", pact: str = "", settings: Settings | None = None, **more: Any
    ) -> AsyncIterator[Served]:
        house = gates(settings or settings_for(url, **more), pact)
        part = await open_models(house.gate)
        try:
            async with house.serving(part.routes) as address:
                yield Served(house, address, house.agent())
        finally:
            await part.close()

    return serving


def calls_then_says(*calls: Call, text: str = "") -> Script:
    """First proposes calls, then repeats what they came to."""

    def script(turn: Turn) -> Reply:
        if turn.results:
            return Reply(text="results: " + " | ".join(turn.results))
        return Reply(text=text, calls=calls)

    return script


SCRIPTS: dict[str, Script] = {
    "default": lambda turn: Reply(text=f"you said {turn.prompt}", model="reported-model"),
    "system": lambda turn: Reply(text=f"system: {turn.system}"),
    "search": calls_then_says(Call("search", {"q": "x"}), text="let me look"),
    "refund": calls_then_says(Call("refund", {"cents": 10})),
    "refund-much": calls_then_says(Call("refund", {"cents": 999})),
    "refund-ask": calls_then_says(Call("refund", {"cents": 60})),
    "both": calls_then_says(
        Call("search", {"q": "x"}), Call("refund", {"cents": 999}), Call("search", {"q": "y"}),
        text="hm",
    ),
    "busy-once": lambda turn: Reply(status=500, error="busy"),
    "breaks": lambda turn: Reply(text="one two three", breaks=True, error="overloaded"),
    "slow": lambda turn: Reply(text="a b c d e f g h i j k l m n o p", pace_s=0.05),
    "bad": lambda turn: Reply(status=400, error="you may not"),
}  # fmt: skip


@pytest.fixture(scope="session")
def upstream() -> Iterator[str]:
    """The scripted model server's URL. The model `scripted:NAME` chooses what it plays."""
    with ModelServer(SCRIPTS) as server:
        yield server.url
