"""Real clients through the gateway, with a pact that takes secrets and personal data out."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Call, Reply, Turn
from tests.canaries import PERSONAL, SECRETS, canaries
from tests.gateway.models.conftest import Serve

PACT = """\
pact: bot
job: test
redact: [secrets, pii]
tools:
  mail: {kind: irreversible, allow: args.to == "bob@acme.com"}
"""
GITHUB = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
SAID = f"Write to bob@acme.com with {GITHUB}"
TOKEN = re.compile(r"<email:[a-p]{12}>")
MAIL: list[Any] = [
    {"type": "function", "function": {"name": "mail", "parameters": {"type": "object"}}}
]


class Upstream:
    """A model that writes to whoever it is told of, and remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    def play(self, turn: Turn) -> Reply:
        self.seen.append(turn.prompt + turn.system + "".join(turn.results))
        token = (TOKEN.search(turn.prompt) or [""])[0]
        if not turn.tools:
            return Reply(text=f"You said {turn.prompt}")
        if turn.results:
            return Reply(text=f"I have written to {token}, and not to eve@else.com.")
        return Reply(text=f"Now I will write to {token}.", calls=(Call("mail", {"to": token}),))


@pytest.fixture
def model() -> Iterator[Upstream]:
    found = Upstream()
    with ModelServer({"default": found.play}) as server:
        found.url = server.url
        yield found


def checked(model: Upstream) -> None:
    assert model.seen
    for seen in model.seen:
        assert "bob@acme.com" not in seen
        assert GITHUB not in seen
        assert "[redacted:github-token]" in seen


@pytest.mark.parametrize("streams", [False, True])
async def test_openai(serve: Serve, model: Upstream, streams: bool) -> None:
    async with serve(model.url, PACT) as served, served.openai() as client:
        said: list[Any] = [{"role": "user", "content": SAID}]
        if streams:
            async with client.chat.completions.stream(
                model="m", messages=said, tools=MAIL
            ) as stream:
                answer = await stream.get_final_completion()
        else:
            answer = await client.chat.completions.create(model="m", messages=said, tools=MAIL)
        message = answer.choices[0].message
        assert message.content == "Now I will write to bob@acme.com."
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"to": "bob@acme.com"}
        said += [
            {"role": "assistant", "tool_calls": [call.model_dump(exclude={"parsed_arguments"})]},
            {"role": "tool", "tool_call_id": call.id, "content": "sent to bob@acme.com"},
        ]
        last = await client.chat.completions.create(model="m", messages=said, tools=MAIL)
        text = last.choices[0].message.content
        assert text.startswith("I have written to bob@acme.com, and not to <email:")
        first, _ = served.house.of("passage")
        events = json.dumps(served.house.recorder.events, default=repr)
    checked(model)
    assert first["redacted"] == {"email": 1, "github-token": 1}
    assert "redact" in first["guards"]
    assert GITHUB not in events
    assert "bob@acme.com" not in events


@pytest.mark.parametrize("streams", [False, True])
async def test_anthropic(serve: Serve, model: Upstream, streams: bool) -> None:
    asked: Any = {
        "model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": SAID}],
        "tools": [{"name": "mail", "input_schema": {"type": "object"}}],
    }  # fmt: skip
    async with serve(model.url, PACT) as served, served.anthropic() as client:
        if streams:
            async with client.messages.stream(**asked) as stream:
                answer = await stream.get_final_message()
        else:
            answer = await client.messages.create(**asked)
    assert answer.content[0].text == "Now I will write to bob@acme.com."
    assert answer.content[1].input == {"to": "bob@acme.com"}
    checked(model)


@pytest.mark.parametrize("streams", [False, True])
async def test_responses(serve: Serve, model: Upstream, streams: bool) -> None:
    asked: Any = {
        "model": "m", "input": SAID, "tools": [{"type": "function", "name": "mail",
        "parameters": {"type": "object"}, "strict": False}],
    }  # fmt: skip
    async with serve(model.url, PACT) as served, served.openai() as client:
        if streams:
            async with client.responses.stream(**asked) as stream:
                answer = await stream.get_final_response()
        else:
            answer = await client.responses.create(**asked)
    assert answer.output_text == "Now I will write to bob@acme.com."
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"to": "bob@acme.com"}
    checked(model)


async def test_1000_canaries_reach_neither_model_nor_record(serve: Serve, model: Upstream) -> None:
    made = [*canaries(8, 700, SECRETS), *canaries(9, 300, PERSONAL)]
    pact = PACT.partition("tools:")[0]
    async with serve(model.url, pact) as served, served.openai() as client:
        for at in range(0, 1000, 50):
            said = [
                {"role": "user", "content": value if isinstance(value, str) else json.dumps(value)}
                for _, _, value in made[at : at + 50]
            ]
            await client.chat.completions.create(model="m", messages=said)
        events = json.dumps(served.house.recorder.events, default=repr, ensure_ascii=False)
    seen = "".join(model.seen)
    assert seen.count("[redacted:") + seen.count("<") > 0
    for _, secret, _ in made:
        body = secret.split("\n")[2] if "\n" in secret else secret
        assert body not in events
        assert body not in seen
