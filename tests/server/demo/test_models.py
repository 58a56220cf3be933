"""The scripted server by its own protocol; the real clients try it in tests/sdk/instruments."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from checkrein.server.demo import openai_wire
from checkrein.server.demo.cast import CAST
from checkrein.server.demo.models import ModelServer, script_name
from checkrein.server.demo.replies import Call, Reply, Turn
from checkrein.server.demo.scripts import SCRIPTS, SPOKEN


def steps(turn: Turn) -> Reply:
    return Reply(text=f"{turn.number} {turn.results} {turn.tools} {turn.prompt}")


def slow(turn: Turn) -> Reply:
    del turn
    return Reply(text="late", latency_s=0.2)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer({**SCRIPTS, "steps": steps, "slow": slow}) as made:
        yield made


def post(server: ModelServer, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=headers, timeout=10)


@pytest.mark.parametrize(
    ("headers", "model", "name"),
    [
        ({"x-scripted": "a", "authorization": "Bearer scripted:b"}, "scripted:c", "a"),
        ({"authorization": "Bearer scripted:b"}, "scripted:c", "b"),
        ({"x-api-key": "scripted:b"}, "gpt-5-mini", "b"),
        ({"authorization": "Bearer sk-real"}, "scripted:c", "c"),
        ({}, "gpt-5-mini", "default"),
    ],
)
def test_which_script(headers: dict[str, str], model: str, name: str) -> None:
    assert script_name(headers, model) == name


def test_behind_a_gateway_an_agent_is_known_by_what_is_said(server: ModelServer) -> None:
    said = [{"role": "system", "content": "You pay bills."}, {"role": "user", "content": "B-7"}]
    body = {"model": "gpt-5-mini", "messages": said}
    key = {"authorization": "Bearer the-gateways-own"}
    answer = post(server, "/v1/chat/completions", body, **key).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "read_bill"
    other = post(server, "/v1/chat/completions", {**body, "messages": said[1:]}, **key).json()
    assert "You said" in other["choices"][0]["message"]["content"]


def test_every_agent_of_the_demo_can_be_known_so() -> None:
    programs = {part.agent: part.program.read_text() for part in CAST}
    spoken = {script: words for words, script in SPOKEN.items() if words in programs[script]}
    assert spoken.keys() == programs.keys() == set(SPOKEN.values())
    for agent, text in programs.items():
        assert {script for words, script in SPOKEN.items() if words in text} == {agent}


def test_turns_of_a_chat(server: ModelServer) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "tool_calls": []},
        {"role": "tool", "tool_call_id": "1", "content": "c"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "d"}]},
    ]
    body = {"model": "scripted:steps", "messages": messages}
    answer = post(server, "/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == "1 ('c', 'd') () a"


def test_turns_of_responses() -> None:
    """One answer may be several items; its tool results come after all of them."""
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "r"},
        {"type": "function_call", "call_id": "1"},
        {"type": "function_call", "call_id": "2"},
        {"type": "function_call_output", "call_id": "1", "output": "c"},
        {"type": "function_call_output", "call_id": "2", "output": "d"},
        {"type": "function_call", "call_id": "3"},
        {"type": "function_call_output", "call_id": "3", "output": "e"},
    ]
    turn = openai_wire.responses_turn({"input": items}, 0)
    assert (turn.number, turn.results, turn.prompt) == (2, ("e",), "a")


def test_turns_of_messages(server: ModelServer) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "c"}]},
    ]
    body = {"model": "scripted:steps", "messages": messages, "tools": [{"name": "t"}]}
    answer = post(server, "/v1/messages", body).json()
    assert answer["content"][0]["text"] == "1 ('c',) ('t',) a"


def test_same_question_same_answer(server: ModelServer) -> None:
    body = {"model": "scripted:librarian", "messages": [{"role": "user", "content": "x"}]}
    first, again = (post(server, "/v1/chat/completions", body).json() for _ in range(2))
    assert first == again
    assert first["choices"][0]["message"]["tool_calls"]


def test_calls_are_told_apart() -> None:
    turn = openai_wire.chat_turn({"model": "m", "messages": []}, 0)
    body = openai_wire.chat_body(turn, Reply(calls=(Call("a"), Call("a"))))
    ids = [call["id"] for call in body["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 2


def test_latency(server: ModelServer) -> None:
    began = time.monotonic()
    post(server, "/v1/responses", {"model": "scripted:slow", "input": "x"})
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/messages", "rate_limit_error"), ("/v1/responses", None)]
)
def test_errors_on_demand(server: ModelServer, path: str, kind: str | None) -> None:
    answer = post(server, path, {"model": "m"}, **{"x-scripted": "rate-limited"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "0.01"
    assert answer.json()["error"]["type"] == (kind or "rate_limit_exceeded")


def test_what_is_not_there(server: ModelServer) -> None:
    assert post(server, "/v1/images", {}).status_code == 404
    unknown = post(server, "/v1/responses", {"model": "scripted:nobody"})
    assert unknown.status_code == 404
    assert "nobody" in unknown.text
    broken = httpx.post(f"{server.url}/v1/responses", content=b"{")
    assert broken.status_code == 400


def test_listens_only_here(server: ModelServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")


def test_as_a_program() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "checkrein.server.demo.models", "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=10)
        assert "You said: hi" in json.dumps(answer.json())
    finally:
        program.terminate()
        program.wait(10)
        if program.stdout is not None:
            program.stdout.close()
