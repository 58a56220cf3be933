"""What the OpenAPI document says may be sent, and what it says may not: nothing breaks the server.

Schemathesis makes the requests from the document itself, valid ones and spoilt ones. A few a route
here; `CHECKREIN_SCHEMA_CASES` sets how many, and with `CHECKREIN_SCHEMA_URL` and
`CHECKREIN_SCHEMA_TOKEN` another server is asked than the one that the test starts.
"""

import asyncio
import os
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from tests.server.api.conftest import Stand

CASES = int(os.environ.get("CHECKREIN_SCHEMA_CASES", "2"))
SEED = int(os.environ.get("CHECKREIN_SCHEMA_SEED", "1"))
ELSEWHERE = os.environ.get("CHECKREIN_SCHEMA_URL", "")
ENDLESS = "stream"
BROKEN_SHOWN = 20


async def test_nothing_that_can_be_sent_breaks_a_route(stand: Stand) -> None:
    url, token = ELSEWHERE or stand.url, os.environ.get("CHECKREIN_SCHEMA_TOKEN") or stand.token
    seen: Counter[str] = Counter()
    broken = await asyncio.to_thread(broken_by, url, token, seen)
    assert broken == []
    assert sum(seen.values()) > CASES * 40
    assert seen["2"] > CASES
    assert seen["4"] > CASES


def broken_by(url: str, token: str, seen: Counter[str]) -> list[str]:
    """Sends up to CASES valid and CASES spoilt requests to each operation; those that were answered
    with 5xx, as commands to send them again. `seen`: answers by their first digit."""
    broken: list[str] = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        document = session.get(f"{url}/api/openapi.json", timeout=10).json()
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = found.ok()
            if operation.definition.raw["operationId"] == ENDLESS:
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _send(operation.as_strategy(generation_mode=mode), url, session, seen, broken)
    return broken


def _send(
    strategy: Any, url: str, session: requests.Session, seen: Counter[str], broken: list[str]
) -> None:
    @seed(SEED)
    @settings(
        max_examples=CASES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def send(case: Any) -> None:
        answer = case.call(base_url=url, session=session, timeout=60)
        seen[str(answer.status_code)[0]] += 1
        if answer.status_code >= 500 and len(broken) < BROKEN_SHOWN:
            broken.append(f"{answer.status_code} {answer.text[:200]} {case.as_curl_command()}")

    send()
