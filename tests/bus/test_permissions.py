"""What an agent's credential cannot do, tried against the real server."""

import asyncio
import json
from collections.abc import Callable

import pytest
from tests.conftest import role_bus, within

from checkrein.bus import nats
from checkrein.bus.embedded import EmbeddedServer
from checkrein.bus.subjects import EVENTS
from checkrein.bus.types import BusError, Message, Refused, Unreachable
from checkrein.world import REAL

HOUR_NS = 3_600_000_000_000


async def session_bus(server: EmbeddedServer, session: str, agent: str) -> nats.NatsBus:
    credential = server.keys.session(session, [agent], REAL.now_ns() + HOUR_NS)
    return await nats.connect(
        [server.url], credential, name=session, inbox_prefix=f"_INBOX_{session}"
    )


async def test_an_agent_publishes_its_own_events_and_no_others(nats_events: EmbeddedServer) -> None:
    async with role_bus(nats_events) as role:
        await role.stream(EVENTS)
        await (await role.bucket("desired")).put("s2.run", b"level")
        bus = await session_bus(nats_events, "s1", "bot")
        try:
            assert await bus.append("ev.bot.03", b"mine") == 1
            for subject in ("ev.other.03", "cmd.s2", "rcpt.s2", "audit.command", "stored.bot.r"):
                with pytest.raises(BusError):
                    await bus.append(subject, b"forged", timeout_s=0.3)
            for call in ("STREAM.PURGE.EVENTS", "STREAM.DELETE.EVENTS", "STREAM.MSG.GET.EVENTS"):
                with pytest.raises((Unreachable, TimeoutError)):
                    await asyncio.wait_for(bus.api(call, {"seq": 1}), 0.3)
            with pytest.raises((Unreachable, TimeoutError)):
                await asyncio.wait_for(bus.last_value("desired", "s2.run"), 0.3)
            assert await role.last_position("EVENTS") == 1
        finally:
            await bus.close()


async def test_an_agent_hears_only_its_own_orders(nats_events: EmbeddedServer) -> None:
    async with role_bus(nats_events) as role:
        bus = await session_bus(nats_events, "s1", "bot")
        heard: list[str] = []

        async def take(message: object) -> None:
            heard.append(message.subject)  # type: ignore[attr-defined]

        try:
            for subject in ("cmd.s1", "cmd.>", "ev.>", "_INBOX.>", "rcpt.>", ">"):
                await bus.subscribe(subject, take)
            await role.publish("ev.other.00", b"x")
            await role.publish("cmd.s2", b"x")
            await role.publish("cmd.s1", b"x")
            await within(5, lambda: heard)
            assert heard == ["cmd.s1"]
            assert "ermission" in str(bus.last_error)
        finally:
            await bus.close()


async def test_forged_and_expired_credentials_are_refused(nats_events: EmbeddedServer) -> None:
    good = nats_events.keys.session("s1", ["bot"], REAL.now_ns() + HOUR_NS)
    other = nats_events.keys.session("s2", ["bot"], REAL.now_ns() + HOUR_NS)
    expired = nats_events.keys.session("s1", ["bot"], REAL.now_ns() - HOUR_NS)

    def forged(change: Callable[[dict[str, object]], None]) -> str:
        import base64

        head, body, signature = good.jwt.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        change(claims)
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"{head}.{body}.{signature}"

    wider = forged(lambda claims: claims["nats"].update(pub={"allow": [">"]}))  # type: ignore[attr-defined]
    from checkrein.bus.credentials import Credential

    for credential in (
        expired,
        Credential(wider, good.seed),
        Credential(good.jwt, other.seed),
        Credential("garbage", good.seed),
    ):
        with pytest.raises((Refused, Unreachable)):
            await nats.connect([nats_events.url], credential, name="x", timeout_s=1)


async def test_the_server_cuts_a_connection_when_its_credential_ends(
    nats_events: EmbeddedServer,
) -> None:
    credential = nats_events.keys.session("s1", ["bot"], REAL.now_ns() + 2_000_000_000)
    bus = await nats.connect([nats_events.url], credential, name="s1", inbox_prefix="_INBOX_s1")
    lost = asyncio.Event()
    bus.on_connection(lambda up: None if up else lost.set())
    bus.renew(nats_events.keys.session("s1", ["bot"], REAL.now_ns() + HOUR_NS))
    await asyncio.wait_for(lost.wait(), 10)
    await within(10, lambda: bus.connected)
    await bus.close()


async def test_an_agent_asks_in_its_own_name_and_decides_nothing(
    nats_events: EmbeddedServer,
) -> None:
    async with role_bus(nats_events) as role:
        heard: list[str] = []

        async def take(message: Message) -> None:
            heard.append(message.subject)

        for name in ("approvals", "escalations"):
            await (await role.bucket(name)).put("a1", b"open")
        for subject in ("ask.*", "ctl.>"):
            await role.subscribe(subject, take)
        bus = await session_bus(nats_events, "s1", "bot")
        try:
            for subject in (
                "ask.s2", "ctl.decide", "ctl.acknowledge", "ctl.approvals", "ctl.escalations",
            ):  # fmt: skip
                await bus.publish(subject, b"x")
            for bucket in ("approvals", "escalations"):
                with pytest.raises((Unreachable, TimeoutError)):
                    await asyncio.wait_for(bus.last_value(bucket, "a1"), 0.3)
                with pytest.raises(BusError):
                    await bus.append(f"$KV.{bucket}.a1", b"approved", timeout_s=0.3)
            await bus.publish("ask.s1", b"x")
            await within(5, lambda: heard)
            assert heard == ["ask.s1"]
        finally:
            await bus.close()
