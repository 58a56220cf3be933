"""The link over the buses: sessions, registration, beats, orders true and false."""

import asyncio
import threading
import time
from typing import Any

import pytest
from nacl.signing import SigningKey

import checkrein
from checkrein.bus import messages, orders, subjects
from checkrein.bus.memory import MemoryServer
from checkrein.bus.messages import (
    Beat,
    Order,
    OrderRun,
    Progress,
    Registered,
    Registration,
    SessionGrant,
    SessionRequest,
    encode,
)
from checkrein.bus.types import Bus, Message
from checkrein.sdk import quiet
from checkrein.sdk.config import Endpoint
from checkrein.sdk.links import contact
from checkrein.sdk.links.bus import BusLink
from checkrein.sdk.links.session import NoSession
from checkrein.sdk.links.shipping import NoShipping
from checkrein.sdk.links.types import Process
from checkrein.sdk.run import Run
from checkrein.world import REAL
from tests.sdk.fakes import House, halted, house

SESSION = "s1"
HOUR_NS = 3600 * 10**9


class Control:
    """The other end, in the link's own loop: what the control role and the api would be."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.server = MemoryServer()
        self.here = True
        self.heard: list[Progress] = []
        self.beats: list[Beat] = []
        self.registered: list[str] = []
        self.standing: dict[str, bytes] = {}
        self.pacts: dict[str, str] = {}
        self.asked: list[SessionRequest] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.bus: Bus | None = None
        self._epoch = 0

    def ask(self, endpoint: Endpoint, request: SessionRequest) -> SessionGrant:
        self.asked.append(request)
        if not self.here:
            raise NoSession(f"{endpoint.url}: connection refused")
        return SessionGrant(
            session=SESSION, bus_urls=[], control_urls=[], jwt="", seed="",
            control_key=bytes(self.key.verify_key).hex(),
            expires_at=REAL.now_ns() + HOUR_NS, pacts=self.pacts,
        )  # fmt: skip

    async def connect(self, grant: SessionGrant) -> tuple[Bus, Bus]:
        self.loop = asyncio.get_running_loop()
        self.bus = self.server.connect()
        await self.bus.subscribe(subjects.receipts(SESSION), self._progress)
        await self.bus.subscribe(subjects.beat(SESSION), self._beat)
        await self.bus.subscribe(subjects.registration(SESSION), self._registration)
        await self.bus.bucket(subjects.BUCKET_DESIRED)
        return self.server.connect(), self.server.connect()

    async def _progress(self, message: Message) -> None:
        self.heard.append(messages.decode(message.data, Progress))

    async def _beat(self, message: Message) -> None:
        self.beats.append(messages.decode(message.data, Beat))

    async def _registration(self, message: Message) -> None:
        asked = messages.decode(message.data, Registration)
        self.registered += [run.run_id for run in asked.runs]
        assert self.bus is not None
        found = [self.standing[r.run_id] for r in asked.runs if r.run_id in self.standing]
        await self.bus.respond(message, encode(Registered(orders=found)))

    def order(self, verb: str, *runs: str, epoch: int = 0, key: SigningKey | None = None,
              **changes: Any) -> bytes:  # fmt: skip
        self._epoch = epoch or self._epoch + 1
        fields: dict[str, Any] = {
            "command_id": f"c{self._epoch}-{verb}", "session": SESSION, "verb": verb,
            "runs": [OrderRun(run, self._epoch) for run in runs], "reason": "because",
            "issued_by": "ann", "issued_at": REAL.now_ns(),
            "expires_at": REAL.now_ns() + HOUR_NS, "nonce": f"n{self._epoch}",
        } | changes  # fmt: skip
        return orders.sign(Order(**fields), key or self.key)

    def send(self, data: bytes) -> None:
        bus, loop = self.bus, self.loop
        assert bus is not None
        assert loop is not None
        sending = asyncio.run_coroutine_threadsafe(
            bus.publish(subjects.command(SESSION), data), loop
        )
        sending.result(10)

    def stages(self, command_id: str) -> list[str]:
        return [one.stage for one in list(self.heard) if one.command_id == command_id]


def wait_for(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.002)


class Linked:
    """A house whose client is linked to a `Control`."""

    def __init__(self, **pacts: str) -> None:
        self.control = Control()
        self.control.pacts = pacts
        self.endpoint: Endpoint | None = Endpoint("http://127.0.0.1:1", "t")

    def __enter__(self) -> "Linked":
        def make(process: Process) -> BusLink:
            self.link = BusLink(
                process, lambda: self.endpoint, self.control.ask, self.control.connect,
                NoShipping(),
            )  # fmt: skip
            return self.link

        self._house = house(make_link=make)
        self.house: House = self._house.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._house.__exit__(*error)

    def registered(self, run: Run) -> None:
        wait_for(lambda: run.run_id in self.control.registered)


@checkrein.tool
def act(n: int = 0) -> int:
    return n


def test_a_run_is_registered_and_beaten_for() -> None:
    with Linked() as it:
        with checkrein.run(goal="g") as run:
            it.registered(run)
            wait_for(lambda: any(b.runs for b in it.control.beats))
            beat = next(b.runs[0] for b in it.control.beats if b.runs)
            assert (beat.run_id, beat.status) == (run.run_id, "running")
        wait_for(lambda: any(b.ended for b in it.control.beats))
        ended = next(b.ended[0] for b in it.control.beats if b.ended)
        assert (ended.run_id, ended.status) == (run.run_id, "completed")
        assert it.control.asked[0].agents == ["bot"]


def test_pause_and_resume_with_their_receipts() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(it.control.order("pause", run.run_id))
        wait_for(lambda: it.control.stages("c1-pause") == ["delivered", "held"])
        done = threading.Event()
        threading.Thread(target=lambda: (act(), done.set())).start()
        assert not done.wait(0.05)
        it.control.send(it.control.order("resume", run.run_id))
        assert done.wait(10)
        wait_for(lambda: it.control.stages("c2-resume") == ["delivered", "resumed"])
        assert all(one.by == "sdk" and not one.confirmed for one in it.control.heard)


def test_held_is_said_only_when_the_last_call_has_come_back() -> None:
    inside, go = threading.Event(), threading.Event()

    @checkrein.tool
    def slow() -> None:
        inside.set()
        go.wait(10)

    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        there = threading.Thread(target=slow)
        there.start()
        inside.wait(10)
        it.control.send(it.control.order("pause", run.run_id))
        wait_for(lambda: "delivered" in it.control.stages("c1-pause"))
        assert "held" not in it.control.stages("c1-pause")
        go.set()
        wait_for(lambda: "held" in it.control.stages("c1-pause"))
        it.control.send(it.control.order("resume", run.run_id))
        there.join()


def test_halt_with_its_receipts() -> None:
    with Linked() as it:
        with halted("because"), checkrein.run() as run:
            it.registered(run)
            it.control.send(it.control.order("halt", run.run_id))
            wait_for(lambda: run.hold.halted)
            act()
        wait_for(lambda: it.control.stages("c1-halt") == ["delivered", "fence", "unwind", "obeyed"])


def test_a_repeated_order_is_reported_again_and_not_obeyed_again() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        pause = it.control.order("pause", run.run_id)
        it.control.send(pause)
        wait_for(lambda: "held" in it.control.stages("c1-pause"))
        it.control.send(it.control.order("resume", run.run_id))
        wait_for(lambda: not run.hold.taut)
        it.control.send(pause)  # replayed after the resume
        wait_for(lambda: len(it.control.heard) > 4)
        assert not run.hold.taut
        assert act() == 0


@pytest.mark.parametrize(
    ("why", "change"),
    [
        (orders.FORGED, {"key": SigningKey.generate()}),
        (orders.OTHER_SESSION, {"session": "s2"}),
        (orders.EXPIRED, {"expires_at": 1}),
    ],
)
def test_a_false_order_is_refused_and_counted(why: str, change: dict[str, Any]) -> None:
    before = quiet.refused_orders[why]
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(it.control.order("pause", run.run_id, **change))
        wait_for(lambda: quiet.refused_orders[why] == before + 1)
        assert not run.hold.taut
        assert act() == 0


def test_garbage_is_refused_and_counted() -> None:
    before = quiet.refused_orders[orders.GARBAGE]
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(b"\xff\x00 no order")
        wait_for(lambda: quiet.refused_orders[orders.GARBAGE] == before + 1)
        assert act() == 0


def test_an_older_order_is_refused_with_a_receipt() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(it.control.order("resume", run.run_id, epoch=9))
        it.control.send(it.control.order("pause", run.run_id, epoch=4))
        wait_for(lambda: it.control.stages("c4-pause") == ["refused"])
        assert act() == 0


def test_a_probe_is_answered_with_its_nonce_and_changes_nothing() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(it.control.order("probe", run.run_id, nonce="abc"))
        wait_for(lambda: any(one.stage == "probe" for one in it.control.heard))
        probe = next(one for one in it.control.heard if one.stage == "probe")
        assert probe.nonce == "abc"
        assert run.hold.rein.epoch == 0


def test_an_order_for_a_run_we_do_not_hold_fails_and_says_so() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.control.send(it.control.order("halt", "no-such-run"))
        wait_for(lambda: it.control.stages("c1-halt") == ["failed"])


def test_what_stood_ordered_before_we_came_is_obeyed_on_registering() -> None:
    with Linked() as it:
        with checkrein.run() as first:
            it.registered(first)
        with halted(), checkrein.run() as run:
            it.control.standing[run.run_id] = it.control.order("halt", run.run_id, expires_at=0)
            wait_for(lambda: run.hold.halted or it.control.registered.count(run.run_id) > 0)
            if not run.hold.halted:  # registered before the order stood: it comes as the level
                it.control.send(it.control.standing[run.run_id])
            wait_for(lambda: run.hold.halted)
            act()


def test_the_level_in_the_bucket_is_read_when_contact_comes_back() -> None:
    with Linked() as it, halted(), checkrein.run() as run:
        it.registered(run)
        standing = it.control.order("halt", run.run_id, expires_at=0)

        async def put() -> None:
            assert it.control.bus is not None
            bucket = await it.control.bus.bucket(subjects.BUCKET_DESIRED)
            await bucket.put(subjects.desired_key(SESSION, run.run_id), standing)

        assert it.control.loop is not None
        asyncio.run_coroutine_threadsafe(put(), it.control.loop).result(10)
        it.link._registering.again()  # what a reconnect does
        it.link._wake()
        wait_for(lambda: run.hold.halted)
        act()


def test_the_servers_pact_judges() -> None:
    with Linked(bot="pact: bot\ntools: {other: {kind: read}}\n") as it:
        with checkrein.run(), pytest.raises(checkrein.Denied) as denied:
            act()
        assert denied.value.rule.startswith("tools")
        assert it.house.recorder.of("run.start")[0]["pact"] == "bot"


def test_a_server_that_comes_later_is_found() -> None:
    it = Linked()
    it.control.here = False
    with it, checkrein.run() as run:
        assert act() == 0
        wait_for(lambda: len(it.control.asked) > 0)
        assert not it.link.connected
        it.control.here = True
        it.registered(run)
        wait_for(lambda: it.link.connected)
        it.control.send(it.control.order("pause", run.run_id))
        wait_for(lambda: run.status == "paused")
        it.control.send(it.control.order("resume", run.run_id))
        wait_for(lambda: run.status == "running")


def test_a_run_of_another_agent_gets_a_session_of_its_own() -> None:
    with Linked() as it:
        with checkrein.run() as first:
            it.registered(first)
            with checkrein.run(agent="helper") as inner:
                it.registered(inner)
        assert it.control.asked[-1].agents == ["bot", "helper"]
        assert it.control.asked[-1].session == SESSION


def test_lost_contact_pauses_where_the_pact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "PATIENCE_NS", 1)
    with Linked(bot="pact: bot\nlost_contact: pause\n") as it, checkrein.run() as run:
        it.registered(run)
        it.link._contact.lost()
        assert run.status == "paused"
        it.link._contact.back()
        assert run.status == "running"
        assert act() == 0


def test_lost_contact_halts_where_the_pact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "PATIENCE_NS", 1)
    pact = "pact: bot\nlost_contact: halt\n"
    with Linked(bot=pact) as it, halted("contact"), checkrein.run() as run:
        it.registered(run)
        it.link._contact.lost()
        act()


def test_lost_contact_is_borne_for_a_while_and_by_default_for_ever() -> None:
    with Linked() as it, checkrein.run() as run:
        it.registered(run)
        it.link._contact.lost()
        it.link._contact.look()
        assert run.status == "running"
        assert act() == 0
