"""Every route of the OpenAPI, given nonsense: it is refused or answered, nothing breaks."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.api.conftest import Stand

_EXAMPLES = 10
NUMBERS = st.sampled_from(
    ["-1", "0", "1", "1.5", "1e309", "NaN", "0x10", str(2**63 - 1), str(2**63), str(2**64),
     str(-(2**63) - 1), "9" * 5_000]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["..", "../../etc/passwd", "\x00", "\x1b[2J", "\u202e", "*", ">", "ev.*", "a.b", "%",
         "' OR 1=1 --", "\r\nX: y", "run:", "agent:a", "true", "null", "01a1fc5c", "a" * 2_000]
    ),
    NUMBERS,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXTS
    | st.sampled_from([-1, 0, 1, 2**63, 2**64, -(2**63) - 1, 10**30]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = {
    "verb": st.sampled_from(["pause", "halt", "inject", "redirect", "probe", "fly"]),
    "target": st.sampled_from(["all", "agent:nobody"]) | TEXTS, "wait_ms": st.just(0) | NUMBERS,
    "reason": st.just("because") | TEXTS, "agents": st.lists(TEXTS, max_size=3),
    "pacts": st.dictionaries(TEXTS, TEXTS, max_size=2), "text": TEXTS, "arguments": JSON,
}  # fmt: skip
BODIES = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS).map(json.dumps).map(str.encode),
    st.fixed_dictionaries(FIELDS).map(json.dumps).map(str.encode),
    JSON.map(json.dumps).map(str.encode),
    st.binary(max_size=60),
)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in sorted(document["paths"].items()):
        for method, operation in sorted(methods.items()):
            if operation["operationId"] != "stream":  # has no end
                yield method, path, operation


def asked(data: st.DataObject, path: str, operation: dict[str, Any]) -> tuple[str, dict[str, str]]:
    query = {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            given_text = data.draw(TEXTS.filter(bool), parameter["name"])
            shown = quote(given_text, safe="", errors="surrogatepass")
            path = path.replace("{" + parameter["name"] + "}", shown)
        elif parameter["in"] == "query" and data.draw(st.booleans()):
            query[parameter["name"]] = data.draw(TEXTS, parameter["name"])
    return path, query


async def test_no_nonsense_breaks_a_route(stand: Stand) -> None:
    async with stand.client() as client:
        document = (await client.get("/api/openapi.json")).json()
    found = list(operations(document))
    assert len(found) > 15
    broken: list[str] = []

    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def gather(data: st.DataObject) -> None:
        for method, path, operation in found:
            where, query = asked(data, path, operation)
            body = data.draw(BODIES) if "requestBody" in operation else None
            requests.append((method, where, query, body))

    requests: list[tuple[str, str, dict[str, str], bytes | None]] = []
    gather()
    async with stand.client() as client:
        for method, where, query, body in requests:
            answer = await send(client, method, where, query, body)
            if answer.status_code >= 500:
                broken.append(f"{answer.status_code} {method} {where} {query} {body!r}"[:500])
    assert broken == []


async def send(
    client: httpx.AsyncClient, method: str, where: str, query: dict[str, str], body: bytes | None
) -> httpx.Response:
    return await client.request(
        method, where, params=query, content=body, headers={"Content-Type": "application/json"}
    )
