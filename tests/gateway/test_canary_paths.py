"""1,000 secrets through every path of a call: none is on the disk, whatever the call came to."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from checkrein.gateway.clean import CleanRecorder
from checkrein.gateway.hush import HushedRecorder
from checkrein.gateway.known import KnownKeys
from checkrein.gateway.types import Refusal
from checkrein.sdk.instruments.exchange import Request
from checkrein.sdk.recorder import Recorder
from checkrein.world import REAL
from tests.canaries import PERSONAL, SECRETS
from tests.gateway.conftest import Gates

PACT = """\
pact: bot
job: test
redact: [secrets, pii]
tools:
  note: {kind: read}
  pay: {kind: irreversible, allow: args.to == "nobody"}
"""
PROVIDERS = "provider-key-0123456789-without-a-form"


def needle(secret: str) -> bytes:
    """What would be found of it if it were there."""
    return (secret.split("\n")[2] if "\n" in secret else secret).encode()


async def test_1000_canaries_are_not_on_the_disk(gates: Gates, tmp_path: Path) -> None:
    house = gates(pact=PACT)
    recorder = Recorder(tmp_path, REAL, agent="gateway", environment="development")
    house.client.recorder = HushedRecorder(CleanRecorder(recorder, KnownKeys([PROVIDERS])))
    chance = Random(11)
    kinds = [*SECRETS.values(), *PERSONAL.values()]
    made = [kinds[number % len(kinds)](chance) for number in range(1000)]
    answers: list[str] = []
    for number, secret in enumerate(made):
        key = house.agent(f"bot{number // 4}")  # few refusals a run: nothing is halted
        text = f"it is {secret} indeed"
        headers = {"authorization": f"Bearer {key}", "x-checkrein-run": f"mine {secret}"}
        try:
            async with house.gate.visit(headers, "openai") as visit:
                await PATHS[number % len(PATHS)](visit, text)
        except (Refusal, ValueError) as error:
            answers.append(str(error))
    assert recorder.stats().lost == 0
    recorder.close()
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"run.start" in data
    assert b"tool.returned" in data
    assert b"scope.decision" in data
    assert [secret for secret in made if needle(secret) in data] == []
    assert PROVIDERS.encode() not in data
    assert not any(PROVIDERS in answer for answer in answers if "failed" in answer)


async def _tool(visit: Any, text: str) -> None:
    call = await visit.begin_tool("note", {"text": text, "nested": [{text: text}]}, why=text)
    visit.end_tool(call, {"result": [text, PROVIDERS]})


async def _tool_fails(visit: Any, text: str) -> None:
    call = await visit.begin_tool("note", {"text": text})
    visit.fail_tool(call, ValueError(f"{text} {PROVIDERS}"))


async def _refused(visit: Any, text: str) -> None:
    await visit.begin_tool("pay", {"to": text})


async def _unknown_tool(visit: Any, text: str) -> None:
    await visit.begin_tool(text, {})


async def _model(visit: Any, text: str) -> None:
    request = Request(
        provider="openai", model=text, messages=[{"role": "user", "content": text}],
        parameters={"system": text, "user": text}, tools=(text,), stream=False,
    )  # fmt: skip
    call = await visit.begin_model(request)
    visit.end_model(
        call, content=text, tool_calls=[{"name": text, "arguments": text, "id": text}],
        model=text, fingerprint=text, finish_reason=text, reasoning=text,
    )  # fmt: skip


async def _breaks(visit: Any, text: str) -> None:
    visit.facts |= {"upstream": text, "requested_model": text, "provider_tools": [text]}
    raise ValueError(f"{text} {PROVIDERS}")


PATHS = (_tool, _tool_fails, _refused, _unknown_tool, _model, _breaks)


@pytest.mark.parametrize("secret", [make(Random(3)) for make in SECRETS.values()])
async def test_a_call_id_is_no_way_around(gates: Gates, secret: str) -> None:
    house = gates(pact=PACT)
    headers = {"authorization": f"Bearer {house.agent()}", "x-checkrein-call": secret}
    async with house.gate.visit(headers, "openai") as visit:
        visit.facts["name"] = secret
    assert needle(secret[:128]).decode() not in repr(house.recorder.events)
