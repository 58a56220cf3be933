"""The link over real servers with a session's own credential: what it may do is all it needs."""

import asyncio
from pathlib import Path

from nacl.signing import SigningKey

import checkrein
from checkrein.bus import messages, nats, orders, subjects
from checkrein.bus.messages import Order, OrderRun, Progress, Registered, SessionGrant, Verb, encode
from checkrein.bus.types import Message
from checkrein.events import codec, envelope
from checkrein.sdk import config as configs
from checkrein.sdk import process
from checkrein.sdk.begin import place_of
from checkrein.sdk.client import Client
from checkrein.sdk.config import Endpoint
from checkrein.sdk.links.bus import BusLink
from checkrein.sdk.links.connect import connect_nats
from checkrein.sdk.links.shipping import RingShipping
from checkrein.sdk.links.types import Process
from checkrein.sdk.recorder import Recorder
from checkrein.sdk.run import Run
from checkrein.world import REAL
from tests.conftest import nats_server, role_bus, start, within

SESSION = "01890000-0000-7000-8000-0000000000aa"


@checkrein.tool
def act(n: int) -> int:
    return n


async def test_events_are_shipped_and_orders_obeyed_over_real_servers(tmp_path: Path) -> None:
    key = SigningKey.generate()
    with nats_server(tmp_path) as server:
        async with role_bus(server) as bus:
            await bus.stream(subjects.EVENTS)
            desired = await bus.bucket(subjects.BUCKET_DESIRED)
            said: list[Progress] = []
            registered: list[str] = []

            async def register(message: Message) -> None:
                asked = messages.decode(message.data, messages.Registration)
                registered.extend(run.run_id for run in asked.runs)
                await bus.respond(message, encode(Registered()))

            async def progress(message: Message) -> None:
                said.append(messages.decode(message.data, Progress))

            await bus.subscribe(subjects.registration(SESSION), register)
            await bus.subscribe(subjects.receipts(SESSION), progress)
            credential = server.keys.session(SESSION, ["bot"], REAL.now_ns() + 3600 * 10**9)
            grant = SessionGrant(
                session=SESSION, bus_urls=[server.url], control_urls=[server.url],
                jwt=credential.jwt, seed=credential.seed, expires_at=REAL.now_ns() + 3600 * 10**9,
                control_key=bytes(key.verify_key).hex(),
            )  # fmt: skip
            client = _client(tmp_path / "recorders", grant)
            before, restarted = process._client, server.process
            process.install(client)
            try:
                with checkrein.run(goal="g") as run:
                    for n in range(50):
                        act(n * n)
                    await within(10, lambda: run.run_id in registered)
                    # The level alone, without its edge: read after a reconnect.
                    await desired.put(
                        subjects.desired_key(SESSION, run.run_id), _order("pause", 1, run, key)
                    )
                    server.process.terminate()
                    await asyncio.to_thread(server.process.wait, 10)
                    restarted = start(server)
                    await within(20, lambda: run.status == "paused")
                    await within(20, lambda: any(one.stage == "held" for one in said))
                    await bus.publish(subjects.command(SESSION), _order("resume", 2, run, key))
                    await within(20, lambda: run.status == "running")
                await _all_there(bus, run.run_id, 50)
            finally:
                await asyncio.to_thread(client.close)
                process._client = before
                restarted.terminate()
                restarted.wait(10)


def _client(recorders: Path, grant: SessionGrant) -> Client:
    environ = {"CHECKREIN_RECORDERS": str(recorders), "HOME": str(recorders)}
    config = configs.read(environ, agent="bot")
    recorder = Recorder(recorders, REAL, agent="bot")

    def link(process: Process) -> BusLink:
        return BusLink(
            process, lambda: Endpoint("http://127.0.0.1:9"), lambda *_: grant,
            connect_nats, RingShipping(recorders, recorder),
        )  # fmt: skip

    return Client(config, recorder, place_of, link)


def _order(verb: Verb, epoch: int, run: Run, key: SigningKey) -> bytes:
    order = Order(
        command_id=f"c{epoch}", session=SESSION, verb=verb, runs=[OrderRun(run.run_id, epoch)],
        reason="r", issued_by="ann", issued_at=REAL.now_ns(), expires_at=0, nonce=f"n{epoch}",
    )  # fmt: skip
    return orders.sign(order, key)


async def _all_there(bus: nats.NatsBus, run_id: str, calls: int) -> None:
    """Every event of the run is in the stream, in order."""
    found: list[str] = []
    async with asyncio.timeout(20):
        async for message in bus.read("EVENTS", after=0):
            sent = envelope.unpack(message.data)
            fields = [codec.fields_of(event) for event in sent.events]
            found += [str(one["type"]) for one in fields if one["run_id"] == run_id]
            if "run.end" in found:
                break
    assert found.count("tool.reentered") == calls
    assert found[0] == "run.start"
