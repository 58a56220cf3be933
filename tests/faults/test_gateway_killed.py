"""kill -9 of the gateway while a stream flows: the agent gets an error and not half an answer as a
whole one, what happened is on record, and neither a halt nor a key is forgotten by the restart."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.system import System, eventually

from checkrein.server.demo.models import ModelServer
from checkrein.server.demo.replies import Reply, Turn

WORDS = 400


def slow(turn: Turn) -> Reply:
    return Reply(text=" ".join(f"word{n}" for n in range(WORDS)), pace_s=0.02)


def quick(turn: Turn) -> Reply:
    return Reply(text="done")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with ModelServer({"slow": slow, "quick": quick, "default": quick}) as models:
        system = System(tmp_path_factory.mktemp("killed"))
        system.environment |= {
            "CHECKREIN_OPENAI_UPSTREAM": f"{models.url}/v1", "OPENAI_API_KEY": "sk-real",
        }  # fmt: skip
        system.up()
        yield system
        system.down()


def add(system: System, agent: str) -> openai.OpenAI:
    request = httpx.post(
        f"{system.url}/api/v1/agents", json={"agent": agent},
        headers={"authorization": f"Bearer {system.token}"},
    )  # fmt: skip
    key = request.raise_for_status().json()["key"]
    return openai.OpenAI(base_url=f"{system.gateway}/openai/v1", api_key=key, max_retries=0)


def ask(client: openai.OpenAI, script: str, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": "go"}]
    return client.chat.completions.create(model=f"scripted:{script}", messages=messages, **more)


def runs_of(system: System, agent: str) -> list[dict[str, Any]]:
    return [run for run in system.json("ps", "--all") if run["agent"] == agent]


def kill_gateway(system: System) -> None:
    before = system.children()["gateway"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: system.children().get("gateway", before) != before, 30, "it starts again")
    eventually(lambda: _healthy(system), 30, "it serves again")


def _healthy(system: System) -> bool:
    try:
        return bool(httpx.get(f"{system.gateway}/healthz", timeout=2).status_code == 200)
    except httpx.HTTPError:
        return False


def test_a_stream_breaks_off_cleanly_and_is_on_record(system: System) -> None:
    client = add(system, "streams")
    words: list[str] = []
    begun = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            for chunk in ask(client, "slow", stream=True):
                words.append(chunk.choices[0].delta.content or "" if chunk.choices else "")
                begun.set()
        except (openai.APIError, httpx.HTTPError) as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    kill_gateway(system)
    reader.join(30)
    assert failed, "half an answer passed for a whole one"
    assert len(words) < WORDS

    def recorded() -> Any:
        (run,) = runs_of(system, "streams")
        done = system.run("show", run["run_id"], "--json")
        return [json.loads(done.stdout)] if "model.request" in done.stdout else []

    (events,) = eventually(recorded, 60, "what was recorded before the kill is in the history")
    types = [event["type"] for event in events]
    assert types.count("model.request") == 1
    assert "model.response" not in types
    assert ask(client, "quick").choices[0].message.content == "done"
    client.close()


def test_a_halt_is_not_forgotten(system: System) -> None:
    client = add(system, "stops")
    assert ask(client, "quick").choices[0].message.content == "done"
    done = system.json("halt", "agent:stops", "--reason", "enough")
    assert done["runs"][0]["confirmed"] == "gateway"
    assert "fence" in str(done["runs"][0]["how"])
    for _ in range(2):
        with pytest.raises(openai.PermissionDeniedError, match="enough"):
            ask(client, "quick")
        kill_gateway(system)
    with pytest.raises(openai.PermissionDeniedError, match="enough"):
        ask(client, "quick")
    client.close()
