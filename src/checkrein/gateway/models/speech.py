"""The endpoints that are served, each with the files that speak its protocol."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from checkrein.gateway.models import chat, messages, responses, shapes
from checkrein.gateway.models.calls import Flowing, Item, Outcome, Proposed, Result
from checkrein.gateway.models.screen import Screen
from checkrein.gateway.types import Refusal
from checkrein.sdk.instruments import anthropic_exchange, openai_exchange
from checkrein.sdk.instruments.exchange import Endpoint

Provider = Literal["openai", "anthropic"]
DONE = b"[DONE]"


@dataclass(frozen=True)
class Speech:
    """How one endpoint's requests are read, and its answers read and changed. `named`: events of
    its streams carry their type as a name; `done`: they end with `[DONE]`."""

    exchange: Endpoint
    results: Callable[[Mapping[str, Any]], list[Result]]
    provider_tools: Callable[[Mapping[str, Any]], list[str]]
    proposed: Callable[[Item], list[Proposed]]
    settle: Callable[[Item, list[tuple[Proposed, Outcome]]], None]
    screen: Callable[[Item, Screen], Item]
    flow: Callable[[Screen, chat.Holds | None], Flowing]
    broken: shapes.End
    named: bool = True


@dataclass(frozen=True)
class Way:
    """Where a request goes. `speech` None: it is passed on without a model's call, with a body
    (`asks`) or without."""

    path: str
    speech: Speech | None = None
    asks: bool = True


CHAT = Speech(
    openai_exchange.Chat(), chat.results, chat.provider_tools, chat.proposed, chat.settle,
    chat.screen_whole, chat.Flow, shapes.chat_end, named=False,
)  # fmt: skip
RESPONSES = Speech(
    openai_exchange.Responses(), responses.results, responses.provider_tools, responses.proposed,
    responses.settle, responses.screen_whole, responses.Flow, shapes.responses_end,
)  # fmt: skip
MESSAGES = Speech(
    anthropic_exchange.Messages(), messages.results, messages.provider_tools, messages.proposed,
    messages.settle, messages.screen_whole, messages.Flow, shapes.messages_end,
)  # fmt: skip
EMBEDDINGS = Speech(
    openai_exchange.Embeddings(), lambda body: [], lambda body: [], lambda answer: [],
    lambda answer, settled: None, lambda answer, screen: answer, chat.Flow, shapes.chat_end,
    named=False,
)  # fmt: skip

_OPENAI = {
    ("POST", "/chat/completions"): Way("/chat/completions", CHAT),
    ("POST", "/responses"): Way("/responses", RESPONSES),
    ("POST", "/embeddings"): Way("/embeddings", EMBEDDINGS),
}
_ANTHROPIC = {
    ("POST", "/messages"): Way("/v1/messages", MESSAGES),
    ("POST", "/messages/count_tokens"): Way("/v1/messages/count_tokens"),
}
_MODELS = re.compile(r"/models(?:/[A-Za-z0-9._:@+-]+){0,3}")
_SERVED = {
    "openai": "/openai/v1/chat/completions, /responses, /embeddings and /models",
    "anthropic": "/anthropic/v1/messages, /messages/count_tokens and /models",
}


def way_of(provider: Provider, method: str, path: str) -> Way:
    """`path` is the whole one, percent signs read. Raises Refusal for what is not served."""
    rest = path.removeprefix(f"/{provider}").rstrip("/")
    rest = rest.removeprefix("/v1") if rest.startswith("/v1/") else rest
    table, before = (_OPENAI, "") if provider == "openai" else (_ANTHROPIC, "/v1")
    found = table.get((method, rest))
    if found is not None:
        return found
    if method == "GET" and _MODELS.fullmatch(rest) and ".." not in rest:
        return Way(f"{before}{rest}", asks=False)
    if any(rest == known for _, known in table):
        raise Refusal(405, "bad_request", f"{rest} is asked with POST")
    raise Refusal(
        404, "no_route", f"{method} {path[:200]} is not served here, since it could not be judged: "
        f"there are {_SERVED[provider]}",
    )  # fmt: skip
