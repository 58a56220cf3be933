"""Credentials that are taken back, tried against the real server."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.conftest import nats_server, role_bus, within

from checkrein.bus import claims, nats
from checkrein.bus.credentials import Credential
from checkrein.bus.embedded import EmbeddedServer
from checkrein.bus.subjects import EVENTS
from checkrein.bus.types import Refused, Unreachable
from checkrein.world import REAL

HOUR_NS = 3_600_000_000_000


def credential(server: EmbeddedServer, session: str, agent: str) -> Credential:
    return server.keys.session(session, [agent], REAL.now_ns() + HOUR_NS)


@asynccontextmanager
async def connected(
    server: EmbeddedServer, by: Credential, session: str = "s1", timeout_s: float = 5.0
) -> AsyncIterator[nats.NatsBus]:
    bus = await nats.connect(
        [server.url], by, name=session, inbox_prefix=f"_INBOX_{session}", timeout_s=timeout_s
    )
    try:
        yield bus
    finally:
        await bus.close()


def seconds() -> int:
    return REAL.now_ns() // 1_000_000_000


async def test_a_live_session_is_cut_and_does_not_come_back(nats_events: EmbeddedServer) -> None:
    mine, other = credential(nats_events, "s1", "bot"), credential(nats_events, "s2", "other")
    async with role_bus(nats_events) as role:
        await role.stream(EVENTS)
        async with (
            connected(nats_events, mine) as bus,
            connected(nats_events, other, "s2") as beside,
        ):
            lost: list[bool] = []
            beside.on_connection(lost.append)
            await claims.push(nats_events.keys, [nats_events.url], {mine.user: seconds()})
            await within(1, lambda: not bus.connected)
            with pytest.raises((Refused, Unreachable)):
                async with connected(nats_events, mine, timeout_s=0.5):
                    pass
            assert await beside.append("ev.other.00", b"untouched") == 1
            assert lost == []
        fresh = credential(nats_events, "s1", "bot")
        async with connected(nats_events, fresh) as bus:
            assert await bus.append("ev.bot.00", b"a new credential") == 2


async def test_it_stays_so_when_the_server_starts_anew(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        mine, other = credential(server, "s1", "bot"), credential(server, "s2", "other")
        await claims.push(server.keys, [server.url], {mine.user: seconds()})
    with nats_server(tmp_path) as server:
        with pytest.raises((Refused, Unreachable)):
            async with connected(server, mine, timeout_s=0.5):
                pass
        async with connected(server, other, "s2") as bus:
            assert bus.connected


async def test_what_is_not_listed_any_more_is_let_in_again(nats_events: EmbeddedServer) -> None:
    """So each push must carry all; and two within one second both count."""
    mine = credential(nats_events, "s1", "bot")
    for void in ({mine.user: seconds()}, {"U" + "A" * 55: seconds()}):
        await claims.push(nats_events.keys, [nats_events.url], void)
    async with connected(nats_events, mine) as bus:
        assert bus.connected


async def test_a_session_cannot_take_anything_back(nats_events: EmbeddedServer) -> None:
    mine, other = credential(nats_events, "s1", "bot"), credential(nats_events, "s2", "other")
    async with connected(nats_events, mine) as bus, connected(nats_events, other, "s2") as beside:
        jwt = nats_events.keys.account_jwt({other.user: seconds()})
        with pytest.raises(Unreachable):
            await bus.ask("$SYS.REQ.CLAIMS.UPDATE", jwt.encode(), 0.3)
        assert beside.connected


async def test_a_server_that_is_away_is_told_of(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        keys, url = server.keys, server.url
    with pytest.raises(Unreachable, match="did not confirm"):
        await claims.push(keys, [url], {})


def test_a_remembered_account_of_another_operator_is_not_used(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        keys = server.keys
    server.command()
    assert keys.account_id not in _preloaded(server)
    remembered = server.folder / "jwt" / f"{keys.account_id}.jwt"
    body = base64.urlsafe_b64encode(json.dumps({"iss": "OTHER"}).encode()).decode().rstrip("=")
    for text in (f"e30.{body}.x", "", "not a jwt", "a.!.b"):
        remembered.write_text(text)
        server.command()
        assert keys.account_id in _preloaded(server)


def _preloaded(server: EmbeddedServer) -> str:
    text = server.config_path.read_text()
    return text.split("resolver_preload: {", 1)[1].split("}", 1)[0]
