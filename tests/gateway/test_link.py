"""The gateway hears the orders to others, and the level of every run when it connects."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from checkrein.bus import subjects
from checkrein.bus.messages import Progress, SessionGrant
from checkrein.bus.types import Bus
from checkrein.gateway.link import GatewayLink
from checkrein.sdk import quiet
from checkrein.sdk.links.shipping import NoShipping
from checkrein.sdk.links.types import Process
from checkrein.sdk.run import Run
from checkrein.sdk.types import RunInfo
from tests.sdk.fakes import house
from tests.sdk.test_bus_link import SESSION, Control, wait_for

OTHER = "their-session"
RUN = "0190-run"


class Gateway:
    """A gateway's link over `Control`; the runs of others are mirrored by hand."""

    def __init__(self) -> None:
        self.control = Control()
        self.before: dict[str, bytes] = {}
        self.fenced: list[str] = []

    async def _connect(self, grant: SessionGrant) -> tuple[Bus, Bus]:
        buses = await self.control.connect(grant)
        assert self.control.bus is not None
        bucket = await self.control.bus.bucket(subjects.BUCKET_DESIRED)
        for key, value in self.before.items():
            await bucket.put(key, value)
        return buses

    def __enter__(self) -> "Gateway":
        def make(process: Process) -> GatewayLink:
            self.link = GatewayLink(
                process, self.control.ask, self._connect, NoShipping(), self._changed
            )
            return self.link

        self._house = house(make_link=make)
        self.home = self._house.__enter__()
        wait_for(lambda: self.link.connected)
        return self

    def __exit__(self, *error: Any) -> None:
        self._house.__exit__(*error)

    def _changed(self, run: Run) -> None:
        self.fenced.append(run.hold.rein.state)
        self.link.fence_reported(run, 1, 0)

    def mirror(self) -> Run:
        info = RunInfo(run_id=RUN, task_id="t" * 32, agent="a", room="")
        run = self.home.client.mirror(info)
        self.link.catch_up(run)
        return run

    def say(self, data: bytes, to: str = OTHER) -> None:
        bus, loop = self.control.bus, self.control.loop
        assert bus is not None
        assert loop is not None
        asyncio.run_coroutine_threadsafe(bus.publish(subjects.command(to), data), loop).result(10)

    def said(self, stage: str) -> list[Progress]:
        return [one for one in list(self.control.heard) if one.stage == stage]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as found:
        yield found


def test_an_order_to_a_supervisor_holds_the_run_here_too(gateway: Gateway) -> None:
    run = gateway.mirror()
    gateway.say(gateway.control.order("halt", RUN, session=OTHER))
    wait_for(lambda: run.hold.halted)
    wait_for(lambda: gateway.said("fence"))
    (fence,) = gateway.said("fence")
    assert (fence.run_id, fence.by, fence.confirmed) == (RUN, "gateway", True)
    assert fence.session == SESSION
    assert RUN not in gateway.control.registered


def test_a_pause_and_a_resume_in_order_only(gateway: Gateway) -> None:
    run = gateway.mirror()
    pause = gateway.control.order("pause", RUN, session=OTHER)
    resume = gateway.control.order("resume", RUN, session=OTHER)
    gateway.say(pause)
    wait_for(lambda: run.hold.taut)
    gateway.say(resume)
    wait_for(lambda: not run.hold.taut)
    gateway.say(pause)
    halt = gateway.control.order("halt", "another", session=OTHER)
    gateway.say(halt)
    wait_for(lambda: "another" in gateway.link._standing)
    assert not run.hold.taut


def test_what_was_ordered_before_the_first_call_holds_from_it_on(gateway: Gateway) -> None:
    gateway.say(gateway.control.order("halt", RUN, session=OTHER))
    wait_for(lambda: RUN in gateway.link._standing)
    assert gateway.mirror().hold.halted


def test_the_level_is_read_on_connecting() -> None:
    gateway = Gateway()
    level = gateway.control.order("pause", RUN, session=OTHER, expires_at=0)
    gateway.before[subjects.desired_key(OTHER, RUN)] = level
    with gateway:
        assert gateway.mirror().hold.taut


def test_a_forged_order_changes_nothing_and_is_counted(gateway: Gateway) -> None:
    from nacl.signing import SigningKey

    run = gateway.mirror()
    before = quiet.refused_orders["forged"]
    gateway.say(gateway.control.order("halt", RUN, session=OTHER, key=SigningKey.generate()))
    gateway.say(b"garbage")
    wait_for(lambda: quiet.refused_orders["garbage"])
    assert not run.hold.halted
    assert quiet.refused_orders["forged"] == before + 1


def test_a_halt_is_never_forgotten_for_a_later_resume(gateway: Gateway) -> None:
    halt = gateway.control.order("halt", RUN, session=OTHER)
    resume = gateway.control.order("resume", RUN, session=OTHER)
    gateway.say(halt)
    gateway.say(resume)
    gateway.say(gateway.control.order("halt", "marker", session=OTHER))
    wait_for(lambda: "marker" in gateway.link._standing)
    assert gateway.mirror().hold.halted


def test_a_directive_is_taken_where_no_sdk_would_place_it(gateway: Gateway) -> None:
    run = gateway.mirror()
    order = gateway.control.order("inject", RUN, session=OTHER, arguments={"text": "Be brief"})
    gateway.say(order)
    wait_for(lambda: gateway.said("obeyed"))
    assert run.take_directives() == ("Be brief",)
    gateway.link.announcing.add(RUN)
    gateway.say(gateway.control.order("inject", RUN, session=OTHER, arguments={"text": "x"}))
    gateway.say(gateway.control.order("pause", RUN, session=OTHER))
    wait_for(lambda: run.hold.taut)
    assert run.take_directives() == ()


def test_own_runs_are_registered_and_obey_as_any_holders(gateway: Gateway) -> None:
    run = gateway.home.client.new_run("", "", "a", "", {}, "")
    gateway.home.client.run_began(run)
    wait_for(lambda: run.run_id in gateway.control.registered)
    gateway.say(gateway.control.order("halt", run.run_id), to=SESSION)
    wait_for(lambda: run.hold.halted)
    run.end("halted", "because")
    wait_for(lambda: gateway.said("obeyed"))
    assert gateway.said("obeyed")[0].confirmed
