"""Requests with bounds in bytes and in time, from whoever hangs up or never comes to an end."""

import asyncio
import gc
from typing import Any

import pytest

from checkrein.gateway import wire
from checkrein.gateway.types import Refusal
from checkrein.gateway.wire import Request, first_of


def request(*headers: tuple[str, str], receive: Any = None) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"method": "POST", "path": "/", "headers": raw}, receive)


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
def test_a_key_that_is_sent_twice_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="sent twice"):
        request((name, "one"), (name, "two"))


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_S", 0.01)

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(Refusal) as refused:
        await request(receive=drip).body()
    assert refused.value.status == 408


async def test_what_fails_after_a_hang_up_is_not_left_lying() -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: said.append(told))

    async def broken_off() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise Refusal(502, "upstream_failed", "broken off")

    async def failing() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise RuntimeError("ours")

    async def hangs_up() -> None:
        await asyncio.sleep(0)

    await first_of(broken_off(), hangs_up())
    gc.collect()
    await asyncio.sleep(0)
    assert said == []
    with pytest.raises(RuntimeError, match="ours"):
        await first_of(failing(), hangs_up())
