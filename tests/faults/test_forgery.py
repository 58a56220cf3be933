"""An agent that forges, replays or commands: refused where it tries, and reported by its name.

The agents here are worse than any program with the SDK: each has a credential as the api grants it,
and speaks NATS itself.
"""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey
from tests.system import System, eventually, system

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Credential, Keys
from checkrein.bus.messages import (
    CommandState,
    LiveQuery,
    LiveRun,
    Order,
    OrderRun,
    Progress,
    Registered,
    Registration,
    RunRecord,
    SessionGrant,
    SignedOrder,
    decode,
    encode,
)
from checkrein.bus.orders import FORGED, Inbox, OrderRefused, sign
from checkrein.bus.types import BusError, Message
from checkrein.events.envelope import CHAIN_START, Envelope, advance, as_raw, pack, partition_of
from checkrein.world import REAL

SEEN_S = 10.0
TASK = "d" * 32


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("system")) as started:
        yield started


@dataclass
class Agent:
    """A session and its two connections."""

    grant: SessionGrant
    events: nats.NatsBus
    control: nats.NatsBus

    @property
    def session(self) -> str:
        return self.grant.session


@asynccontextmanager
async def agent(running: System, name: str, kind: str = "sdk") -> AsyncIterator[Agent]:
    grant = await asyncio.to_thread(open_session, running, name, kind)
    credential = Credential(grant.jwt, grant.seed)
    prefix = subjects.inbox(grant.session)
    events = await nats.connect(grant.bus_urls, credential, name=name, inbox_prefix=prefix)
    control = await nats.connect(grant.control_urls, credential, name=name, inbox_prefix=prefix)
    try:
        yield Agent(grant, events, control)
    finally:
        await events.close()
        await control.close()


def post(running: System, path: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(
        running.url + path,
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def open_session(running: System, name: str, kind: str) -> SessionGrant:
    body = {"kind": kind, "agents": [name], "room": "lab"}
    return msgspec.json.decode(post(running, "/api/v1/sessions", body), type=SessionGrant)


@asynccontextmanager
async def control_role(running: System) -> AsyncIterator[nats.NatsBus]:
    """The control bus with the rights of a role: what a broken-in server could do."""
    port = (running.data / "bus/control/port").read_text()
    keys = Keys.load_or_create(running.data / "keys")
    bus = await nats.connect([f"nats://127.0.0.1:{port}"], keys.role("test"), name="test")
    try:
        yield bus
    finally:
        await bus.close()


async def incident(running: System, name: str, says: str, detector: str = "forgery") -> Any:
    """The incident of this agent, within SEEN_S, as `checkrein incidents --json` shows it."""

    def found() -> Any:
        return [
            each
            for each in running.json("incidents", "--agent", name)
            if each["detector"] == detector and says in each["why"]
        ]

    (one,) = await asyncio.to_thread(eventually, found, SEEN_S, f"an incident of {name}: {says}")
    assert one["severity"] == "high"
    assert one["agent"] == name
    return one


async def nothing(message: Message) -> None:
    raise AssertionError(f"heard {message.subject}")


def run_record(of: Agent, name: str, holder: str, run_id: str = "") -> RunRecord:
    return RunRecord(
        run_id=run_id or REAL.uuid7(), task_id=REAL.uuid7().replace("-", ""), agent=name,
        room="lab", environment="test", session=of.session, holder=holder,  # type: ignore[arg-type]
        started_at=REAL.now_ns(),
    )  # fmt: skip


async def register(who: Agent, record: RunRecord) -> Registered:
    data = encode(Registration(session=who.session, runs=[record]))
    answer = await who.control.request(subjects.registration(who.session), data)
    return decode(answer, Registered)


async def test_publishing_as_another_agent(running: System) -> None:
    async with agent(running, "impostor") as impostor, agent(running, "victim"):
        subject = subjects.events("victim", 3)
        with pytest.raises(BusError):
            await impostor.events.append(subject, b"forged", timeout_s=0.5)
        one = await incident(running, "impostor", f"may not publish {subject}")
        assert one["run_id"].startswith("outside-"), "it has no run of its own"
        assert one["room"] == "lab"


async def test_listening_to_everybody(running: System) -> None:
    async with agent(running, "listener") as listener:
        record = run_record(listener, "listener", "sdk")
        assert (await register(listener, record)).error == ""
        await listener.events.subscribe("ev.>", nothing)
        one = await incident(running, "listener", "may not subscribe ev.>")
        assert one["run_id"] == record.run_id
        assert one["task_id"] == record.task_id


async def test_commanding_another_and_replaying_an_order(running: System) -> None:
    async with agent(running, "general") as general, agent(running, "soldier") as soldier:
        heard: list[bytes] = []

        async def hear(message: Message) -> None:
            heard.append(message.data)

        heard_by_soldier: list[bytes] = []

        async def hear_soldier(message: Message) -> None:
            heard_by_soldier.append(message.data)

        await general.control.subscribe(subjects.command(general.session), hear)
        await soldier.control.subscribe(subjects.command(soldier.session), hear_soldier)
        record = run_record(general, "general", "sdk")
        assert (await register(general, record)).error == ""
        body = {"verb": "pause", "target": f"run:{record.run_id}", "reason": "to be heard"}
        await asyncio.to_thread(post, running, "/api/v1/commands", body | {"wait_ms": 0})
        order = await of_verb(heard, "pause")
        target = subjects.command(soldier.session)
        await general.control.publish(target, b"halt!")
        await general.control.publish(target, order)
        one = await incident(running, "general", f"may not publish {target}")
        assert one["run_id"] == record.run_id
        assert heard_by_soldier == []
        # And had it got there: an order for one session is none for another.
        inbox = Inbox(soldier.session, bytes.fromhex(soldier.grant.control_key), REAL)
        with pytest.raises(OrderRefused):
            inbox.accept(order)


async def of_verb(heard: list[bytes], verb: str) -> bytes:
    async with asyncio.timeout(10):
        while True:
            for data in heard:
                if decode(decode(data, SignedOrder).payload, Order).verb == verb:
                    return data
            await asyncio.sleep(0.01)


async def test_an_envelope_that_names_another(running: System) -> None:
    async with agent(running, "ghost") as ghost:
        fields = {
            "recorder": "ghost-1", "seq": 1, "ts": REAL.now_ns(), "environment": "test",
            "room": "lab", "agent": "somebody", "run_id": REAL.uuid7(), "task_id": TASK, "step": 0,
            "type": "run.start", "goal": "to be somebody",
        }  # fmt: skip
        raw = as_raw(fields)
        partition = partition_of(TASK)
        for named in ("somebody", "ghost"):  # the envelope lies; only the event lies
            envelope = Envelope(
                f"{named}-1", named, partition, 0, advance(CHAIN_START, raw), [1], [raw]
            )
            await ghost.events.append(subjects.events("ghost", partition), pack(envelope))
        await incident(running, "ghost", "says agent 'somebody', was published by 'ghost'")
        await incident(running, "ghost", "field `agent` is 'somebody', was published by 'ghost'")
        assert running.json("incidents", "--agent", "somebody") == []
        shown = running.run("show", str(fields["run_id"]), "--json")
        assert shown.returncode == 2, "nothing of it is in the history"


async def test_claiming_to_be_a_supervisor(running: System) -> None:
    async with agent(running, "pretender") as pretender:
        claimed = run_record(pretender, "pretender", "supervisor")
        assert "is a sdk" in (await register(pretender, claimed)).error
        await incident(running, "pretender", "a run held by a supervisor")
        record = run_record(pretender, "pretender", "sdk")
        assert (await register(pretender, record)).error == ""
        heard: list[bytes] = []

        async def confirm(message: Message) -> None:
            heard.append(message.data)
            order = decode(decode(message.data, SignedOrder).payload, Order)
            lies = [
                Progress(
                    command_id=order.command_id, session=pretender.session, run_id=run.run_id,
                    epoch=run.epoch, stage="kill", ms=1.0, at=REAL.now_ns(), by="supervisor",
                    confirmed=True, nonce=order.nonce,
                )
                for run in order.runs
            ]  # fmt: skip
            subject = subjects.receipts(pretender.session)
            await pretender.control.publish(subject, encode(lies))

        await pretender.control.subscribe(subjects.command(pretender.session), confirm)
        done = await asyncio.to_thread(
            running.json, "halt", f"run:{record.run_id}", "--reason", "is it stopped?"
        )
        assert await of_verb(heard, "halt")
        assert [line["confirmed"] for line in done["runs"]] == [""]
        one = await incident(running, "pretender", "a report as supervisor")
        assert one["run_id"] == record.run_id
        async with control_role(running) as bus:
            asked = encode(LiveQuery(ids=[done["command_id"]]))
            answer = await bus.request(subjects.CONTROL_COMMANDS, asked)
            (state,) = decode(answer, list[CommandState])
            assert (state.runs[0].confirmed, state.runs[0].outcome) == ("", "")


FORGED_ORDER_AGENT = """
import sys, time, checkrein
checkrein.init(agent=sys.argv[1])
with checkrein.run(goal="wait for orders") as run:
    print(run.run_id, flush=True)
    for step in run.steps():
        time.sleep(0.05)
"""


@pytest.mark.timeout(90)
@pytest.mark.parametrize("supervised", [True, False])
async def test_an_order_that_control_did_not_sign(running: System, supervised: bool) -> None:
    """By somebody who has broken into the bus itself: the holder refuses, and says so."""
    name = f"target-{supervised}".lower()
    program = [sys.executable, "-c", FORGED_ORDER_AGENT, name]
    if supervised:
        process = running.start("run", "--agent", name, "--", *program, stdout=subprocess.PIPE)
    else:
        process = subprocess.Popen(
            program, stdout=subprocess.PIPE, text=True,
            env=running.environment | {"CHECKREIN_TOKEN": running.token},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        run_id = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with control_role(running) as bus:
            session = await session_of(bus, run_id)
            now = REAL.now_ns()
            order = Order(
                command_id=REAL.uuid7(), session=session, verb="halt",
                runs=[OrderRun(run_id, 10**15)], reason="forged", issued_by="nobody",
                issued_at=now, expires_at=now + 10**10, nonce="n",
            )  # fmt: skip
            forged = sign(order, SigningKey(bytes(32)))
            await bus.publish(subjects.command(session), forged)
            one = await incident(running, name, FORGED, "false-order")
            assert one["run_id"] == run_id
        assert process.poll() is None, "it was not obeyed"
    finally:
        running.run("halt", f"agent:{name}", "--reason", "the test is over")
        process.kill()
        await asyncio.to_thread(process.wait, 20)
        if process.stdout is not None:
            process.stdout.close()


async def session_of(bus: nats.NatsBus, run_id: str) -> str:
    async with asyncio.timeout(15):
        while True:
            asked = encode(LiveQuery(ids=[run_id]))
            found = decode(await bus.request(subjects.CONTROL_RUNS, asked), list[LiveRun])
            if found:
                return found[0].record.session
            await asyncio.sleep(0.02)
