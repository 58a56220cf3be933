"""Who is let in, and how the others are turned away."""

import asyncio
import json

import pytest

from tests.server.api.conftest import Stand

PATHS = ("runs", "events", "incidents", "commands", "agents", "rooms", "status", "stream", "pacts")


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_told_without_the_token(stand: Stand, path: str) -> None:
    async with stand.client(headers={"Authorization": ""}) as client:
        answer = await client.get(f"/api/v1/{path}")
    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthorised"
    assert "operator.token" in answer.json()["do"]


@pytest.mark.parametrize(
    "path",
    ["//api/v1/runs", "///api/v1/runs", "/api/v1//runs", "/api//v1/runs", "/api%2fv1/runs",
     "/%61pi/v1/runs", "/api/v1/runs/", "/./api/v1/runs", "/api/./v1/runs", "/API/v1/runs",
     "//api/v1/sessions", "/nothing", "/"],
)  # fmt: skip
async def test_no_way_of_writing_a_path_goes_around_the_token(stand: Stand, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/openapi.json"])
async def test_what_is_open_needs_no_token(stand: Stand, path: str) -> None:
    async with stand.client(headers={"Authorization": ""}) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic abc", "Bearer", "Bearer \u00e9"])
async def test_a_wrong_token_is_refused(stand: Stand, header: str) -> None:
    async with stand.client() as client:
        answer = await client.get(
            "/api/v1/runs", headers={b"Authorization": header.encode("latin-1")}
        )
    assert answer.status_code == 401


async def test_the_right_token_passes_and_its_file_is_private(stand: Stand) -> None:
    async with stand.client() as client:
        answer = await client.get("/api/v1/runs")
    assert answer.status_code == 200
    assert (stand.data / "operator.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:4400", "", "a@b"])
async def test_a_foreign_host_name_is_refused(stand: Stand, host: str) -> None:
    async with stand.client(headers={"Host": host}) as client:
        for path in ("/api/v1/runs", "/healthz", "/metrics"):
            answer = await client.get(path)
            assert answer.status_code == 403
            assert answer.json()["error"] == "wrong_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:4400", "127.0.0.1"])
async def test_loopback_names_are_ours(stand: Stand, host: str) -> None:
    async with stand.client(headers={"Host": host}) as client:
        assert (await client.get("/api/v1/runs")).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.com"])
async def test_a_foreign_page_is_refused(stand: Stand, origin: str) -> None:
    async with stand.client(headers={"Origin": origin}) as client:
        answer = await client.get("/api/v1/runs")
    assert answer.status_code == 403
    assert answer.json()["error"] == "wrong_origin"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"verb":"halt","verb":"pause","target":"all","reason":"x"}', "'verb' stands twice"),
        (b'{"arguments":{"a":1,"a":2}}', "'a' stands twice"),
        (b'{"verb": NaN}', "NaN is not JSON"),
        (b'{"verb": "halt"', "line 1, column"),
        (b"", "line 1, column 1"),
        (b'{"verb": "\xff"}', "not UTF-8 at byte 10"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 60 + b"]" * 60, "nested deeper"),
        (b'{"a":' + b"9" * 5000 + b"}", "64 bits"),
        (b'{"arguments":{"a":-9223372036854775809}}', "64 bits"),
        (b'{"arguments":{"a":1e999}}', "beyond"),
        (b'{"verb":"fly","target":"all","reason":"x"}', "verb"),
        (b'{"verb":"halt","target":"all"}', "reason"),
        (b'{"verb":"halt","target":"all","reason":"x","wat":1}', "wat"),
        (b'{"verb":"halt","target":7,"reason":"x"}', "target"),
    ],
)
async def test_a_broken_body_is_refused_with_its_place(
    stand: Stand, body: bytes, place: str
) -> None:
    async with stand.client(headers={"Content-Type": "application/json"}) as client:
        answer = await client.post("/api/v1/commands", content=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "detail", "do"}
    assert place in answer.json()["detail"]
    assert stand.control.commands == []


async def test_a_huge_body_is_refused_by_its_length_and_by_its_bytes(stand: Stand) -> None:
    async def endless() -> object:
        for _ in range(40):
            yield b" " * 65536

    async with stand.client() as client:
        told = await client.post("/api/v1/commands", content=b" " * (1024 * 1024 + 1))
        untold = await client.post("/api/v1/commands", content=endless())
    assert (told.status_code, untold.status_code) == (413, 413)
    assert told.json()["error"] == "too_large"
    assert "1048576" in told.json()["detail"]


async def test_unknown_paths_and_methods_are_answered_alike(stand: Stand) -> None:
    async with stand.client() as client:
        missing = await client.get("/api/v1/nothing")
        wrong = await client.put("/api/v1/runs", json={})
    assert (missing.status_code, wrong.status_code) == (404, 405)
    for answer in (missing, wrong):
        assert set(json.loads(answer.content)) == {"error", "detail", "do"}
