"""What the OpenAPI document says may be sent, and what it says may not: nothing breaks the server.

Schemathesis makes the requests from the document itself, valid ones and spoilt ones. A few a route
here; `CHECKREIN_SCHEMA_CASES` sets how many, `CHECKREIN_SCHEMA_URL` and `CHECKREIN_TOKEN` another
server than the one that the test starts.
"""

import asyncio
import os
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from tests.server.api.conftest import Stand

CASES = int(os.environ.get("CHECKREIN_SCHEMA_CASES", "4"))
ELSEWHERE = os.environ.get("CHECKREIN_SCHEMA_URL", "")
ENDLESS = "stream"


def requests_of(document: dict[str, Any], url: str, token: str, seen: Counter[int]) -> list[str]:
    """Sends CASES requests of each kind to each operation; what was answered with 5xx."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    broken: list[str] = []
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as client:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.definition.raw["operationId"] == ENDLESS:
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                except Exception:  # nothing of this operation can be spoilt
                    continue
                send_all(client, strategy, seen, broken)
    return broken


def send_all(client: httpx.Client, strategy: Any, seen: Counter[int], broken: list[str]) -> None:
    @settings(
        max_examples=CASES, deadline=None, database=None, derandomize=CASES < 100,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def send(case: Any) -> None:
        ...

    send()
