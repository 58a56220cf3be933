"""The providers' own clients through the gateway, with nothing changed but URL and key."""

import asyncio
from typing import Any

import anthropic
import openai
import pytest

from checkrein.bus.approvals import Asked
from tests.gateway.models.conftest import TOOLS, Serve

FUNCTIONS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("search", "refund")
]
FLAT: list[Any] = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("search", "refund")
]
CLAUDES: list[Any] = [
    {"name": name, "input_schema": {"type": "object"}} for name in ("search", "refund")
]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_chat_whole_and_recorded(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served, served.openai() as client:
        answer = await client.chat.completions.create(model="gpt-5", messages=user("hello"))
        assert answer.choices[0].message.content == "you said hello"
        house = served.house
        (asked,) = house.of("model.request")
        (said,) = house.of("model.response")
        (passage,) = house.of("passage")
    assert asked["model"] == "gpt-5"
    assert (said["model"], said["content"]) == ("reported-model", "you said hello")
    assert said["input_tokens"] == answer.usage.prompt_tokens
    assert passage["requested_model"] == "gpt-5"
    assert passage["reported_model"] == "reported-model"
    assert (passage["upstream"], passage["attempts"], passage["status"]) == ("openai", 1, "ok")
    assert passage["fingerprint"] == "fp_scripted"


@pytest.mark.parametrize("model", ["gpt-5", "scripted:search", "scripted:refund"])
async def test_chat_streams_as_it_would_directly(serve: Serve, upstream: str, model: str) -> None:
    async def all_of(client: Any) -> tuple[str, list[Any], str]:
        text, calls, finish = "", [], ""
        async with client.chat.completions.stream(
            model=model,
            messages=user("hello"),
            tools=FUNCTIONS,
        ) as stream:
            final = await stream.get_final_completion()
        choice = final.choices[0]
        text = choice.message.content or ""
        calls = [
            (call.id, call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or ()
        ]
        return text, calls, finish or choice.finish_reason

    async with serve(upstream) as served, served.openai() as client:
        async with openai.AsyncOpenAI(base_url=f"{upstream}/v1", api_key="x") as direct:
            wanted = await all_of(direct)
        text, calls, finish = await all_of(client)
    assert (text, finish) == (wanted[0], wanted[2])
    assert [(one[0], one[1], one[2].replace(" ", "")) for one in wanted[1]] == calls


async def test_responses_whole_and_streamed(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served, served.openai() as client:
        whole = await client.responses.create(model="gpt-5", input="hello")
        assert whole.output_text == "you said hello"
        async with client.responses.stream(
            model="scripted:search", input="hello", tools=FLAT
        ) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
    assert final.output_text == "let me look"
    assert final.output[1].name == "search"
    assert "response.function_call_arguments.done" in kinds


async def test_embeddings(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served, served.openai() as client:
        found = await client.embeddings.create(model="emb", input=["a", "b"])
        assert len(found.data) == 2
    assert served.house.of("model.response")[0]["output_tokens"] == 0


async def test_messages_whole_and_streamed(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served, served.anthropic() as client:
        whole = await client.messages.create(model="claude", max_tokens=99, messages=user("hello"))
        assert whole.content[0].text == "you said hello"
        async with client.messages.stream(
            model="scripted:search", max_tokens=99, messages=user("hello"), tools=CLAUDES
        ) as stream:
            final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use"]
    assert final.content[1].input == {"q": "x"}
    assert final.stop_reason == "tool_use"
    assert [e["name"] for e in served.house.of("passage")] == ["claude", "scripted:search"]


async def test_blocking_clients(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served:

        def ask() -> tuple[str, str, str]:
            with openai.OpenAI(base_url=f"{served.url}/openai/v1", api_key=served.key) as one:
                chat = one.chat.completions.create(model="gpt-5", messages=user("hello"))
                pieces = one.chat.completions.create(
                    model="gpt-5", messages=user("hello"), stream=True
                )
                streamed = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
            with anthropic.Anthropic(
                base_url=f"{served.url}/anthropic", api_key=served.key
            ) as other:
                message: Any = other.messages.create(
                    model="claude", max_tokens=9, messages=user("hello")
                )
            return str(chat.choices[0].message.content), streamed, str(message.content[0].text)

        assert await asyncio.to_thread(ask) == ("you said hello",) * 3


async def test_a_directive_is_put_before_the_model(serve: Serve, upstream: str) -> None:
    async with serve(upstream) as served, served.openai() as client:
        await client.chat.completions.create(model="gpt-5", messages=user("hello"))
        served.house.run().advise("be brief")
        answer = await client.chat.completions.create(
            model="scripted:system", messages=user("hello")
        )
        assert "[checkrein] A directive" in answer.choices[0].message.content
        assert "be brief" in answer.choices[0].message.content


# -- tools that the agent runs itself -------------------------------------------------------------


async def chat_round(client: Any, model: str, stream: bool = False) -> Any:
    """One proposal; if a call came, its result and the next answer."""
    messages = user("go")
    if stream:
        async with client.chat.completions.stream(
            model=model, messages=messages, tools=FUNCTIONS
        ) as events:
            first = (await events.get_final_completion()).choices[0]
    else:
        first = (
            await client.chat.completions.create(model=model, messages=messages, tools=FUNCTIONS)
        ).choices[0]
    if not first.message.tool_calls:
        return first, None
    messages.append(first.message.model_dump(exclude_none=True, exclude={"parsed"}))
    for call in first.message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"did {call.id}"})
    second = await client.chat.completions.create(model=model, messages=messages)
    return first, second.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_allowed_is_recorded_from_proposal_to_result(
    serve: Serve, upstream: str, stream: bool
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        first, second = await chat_round(client, "scripted:refund", stream)
        house = served.house
        call_id = first.message.tool_calls[0].id
        assert second == f"results: did {call_id}"
        (returned,) = house.of("tool.returned")
        assert (returned["call_id"], returned["result"]) == (call_id, f"did {call_id}")
        assert [e["kind"] for e in house.of("passage")] == ["model", "model"]
        assert not house.run().in_flight


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_refused_does_not_reach_the_agent(
    serve: Serve, upstream: str, stream: bool
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        first, _ = await chat_round(client, "scripted:refund-much", stream)
        assert not first.message.tool_calls
        assert first.finish_reason == "stop"
        assert "[checkrein] refund is not allowed" in first.message.content
        (returned,) = served.house.of("tool.returned")
        assert returned["status"] == "denied"
        assert served.house.of("passage")[0]["status"] == "ok"


@pytest.mark.parametrize("stream", [False, True])
async def test_of_several_calls_only_the_refused_one_is_taken_out(
    serve: Serve, upstream: str, stream: bool
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        first, second = await chat_round(client, "scripted:both", stream)
        assert [one.function.arguments for one in first.message.tool_calls] == [
            '{"q":"x"}', '{"q":"y"}',
        ]  # fmt: skip
        assert first.message.content.startswith("hm\n\n[checkrein] refund")
        assert first.finish_reason == "tool_calls"
        assert second.count("did") == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", ["approved", "denied"])
async def test_the_answer_waits_for_an_approval(
    serve: Serve, upstream: str, stream: bool, status: Any
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        served.house.link.answer = lambda question: Asked(
            claim=question.claim, status=status, approval_id="a1", by="ann", reason="because"
        )
        first, _ = await chat_round(client, "scripted:refund-ask", stream)
        assert bool(first.message.tool_calls) == (status == "approved")
        assert len(served.house.link.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_calls_in_messages(serve: Serve, upstream: str, stream: bool) -> None:
    async with serve(upstream, TOOLS) as served, served.anthropic() as client:

        async def ask(model: str) -> Any:
            more: Any = {"max_tokens": 99, "messages": user("go"), "tools": CLAUDES}
            if not stream:
                return await client.messages.create(model=model, **more)
            async with client.messages.stream(model=model, **more) as events:
                return await events.get_final_message()

        refused = await ask("scripted:refund-much")
        assert refused.stop_reason == "end_turn"
        assert refused.content[0].text.startswith("[checkrein] refund is not allowed")
        both = await ask("scripted:both")
        assert [b.type for b in both.content] == ["text", "tool_use", "text", "tool_use"]
        assert [b.input for b in both.content if b.type == "tool_use"] == [{"q": "x"}, {"q": "y"}]
        assert both.stop_reason == "tool_use"
        calls = [block for block in both.content if block.type == "tool_use"]
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": calls[0].id, "content": "fine"},
            {"type": "tool_result", "tool_use_id": calls[1].id, "content": "oh", "is_error": True},
        ]
        messages = [
            *user("go"), {"role": "assistant", "content": [b.model_dump() for b in both.content]},
            {"role": "user", "content": results},
        ]  # fmt: skip
        await client.messages.create(model="scripted:both", max_tokens=99, messages=messages)
        said = [(e.get("status", "ok"), e.get("result")) for e in served.house.of("tool.returned")]
        assert said == [("denied", None), ("denied", None), ("ok", "fine"), ("error", None)]


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_calls_in_responses(serve: Serve, upstream: str, stream: bool) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:

        async def ask(model: str) -> Any:
            if not stream:
                return await client.responses.create(model=model, input="go", tools=FLAT)
            async with client.responses.stream(model=model, input="go", tools=FLAT) as events:
                async for _ in events:
                    pass
                return await events.get_final_response()

        refused = await ask("scripted:refund-much")
        assert [one.type for one in refused.output] == ["message"]
        assert refused.output_text.startswith("[checkrein] refund is not allowed")
        both = await ask("scripted:both")
        kinds = ["message", "function_call", "message", "function_call"]
        assert [one.type for one in both.output] == kinds
        call = both.output[1]
        given = [
            {"role": "user", "content": "go"}, call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "fine"},
        ]  # fmt: skip
        given[1].pop("parsed_arguments", None)
        await client.responses.create(model="scripted:both", input=given)
        assert served.house.of("tool.returned")[-1]["result"] == "fine"


async def test_tools_of_a_server_behind_the_gateway_are_judged_there(
    serve: Serve, upstream: str
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        served.house.gate.served_tools.take("bot", "pay", frozenset({"refund"}))
        first, _ = await chat_round(client, "scripted:refund-much")
        assert first.message.tool_calls
        assert served.house.of("tool.selected") == []


async def test_what_an_sdk_has_announced_is_judged_and_not_recorded_again(
    serve: Serve, upstream: str
) -> None:
    async with serve(upstream, TOOLS) as served:
        served.key = served.house.run_key()
        async with served.openai() as client:
            more = {"extra_headers": {"x-checkrein-call": "c-1"}}
            first = await client.chat.completions.create(
                model="scripted:refund", messages=user("go"), tools=FUNCTIONS, **more
            )
            message = first.choices[0].message
            assert message.tool_calls
            result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
            history = [*user("go"), message.model_dump(exclude_none=True), result]
            await client.chat.completions.create(
                model="scripted:refund", messages=history,
                extra_headers={"x-checkrein-call": "c-2"},
            )  # fmt: skip
            types = served.house.recorder.types()
            assert "model.request" not in types
            assert "tool.invoked" not in types
            assert [e["call_id"] for e in served.house.of("passage")] == ["c-1", "c-2"]
            guard = served.house.run().seat._guard.enforced  # type: ignore[attr-defined]
            assert guard.spent.tool_calls == 1
            assert not guard.open


async def test_the_tools_of_another_agents_server_are_judged_all_the_same(
    serve: Serve, upstream: str
) -> None:
    async with serve(upstream, TOOLS) as served, served.openai() as client:
        served.house.gate.served_tools.take("other", "pay", frozenset({"refund"}))
        first, _ = await chat_round(client, "scripted:refund-much")
        assert not first.message.tool_calls
