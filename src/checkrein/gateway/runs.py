"""The runs whose calls pass here: those that others hold, and those the gateway itself begins.

A run's key, or an agent's key with the id of a live run of that agent, belongs to that run, which
its own holder began and will end. Any other call with an agent's key belongs to a run of the
gateway: one for each agent (and for each name that the agent gives in `x-checkrein-run`), begun
with its first call and ended when nothing has come for a while.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from checkrein.bus.identities import HaltedRun
from checkrein.bus.messages import RunRecord
from checkrein.bus.pacts import place_of
from checkrein.gateway.hush import HushedAllowance
from checkrein.gateway.keybook import KeyBook
from checkrein.gateway.link import GatewayLink
from checkrein.gateway.types import Announced, Caller, Refusal
from checkrein.sdk.client import Client
from checkrein.sdk.run import Run
from checkrein.sdk.traceparent import task_of
from checkrein.sdk.types import RunInfo
from checkrein.world import is_uuid7

SWEEP_S = 5.0
MIRROR_KEPT_NS = 600_000_000_000
RUNS_MAX = 10_000
AGENT_RUNS_MAX = 1_000
"""Of one agent, begun here: so that names it makes up leave room for others."""
NAME_CHARS_MAX = 128
AWAIT_S = 0.025
AWAIT_TIMES = 60
"""How often, and how long between, a run is looked for that has just begun elsewhere."""


@dataclass(frozen=True)
class Desk:
    """What serves one environment: a process as the SDK knows it, and its link."""

    client: Client
    link: GatewayLink


OpenDesk = Callable[[str], Awaitable[Desk]]


class Runs:
    """On the gateway's loop."""

    def __init__(self, keys: KeyBook, open_desk: OpenDesk, idle_s: float) -> None:
        self._keys, self._open, self._idle_ns = keys, open_desk, round(idle_s * 1e9)
        self._desks: dict[str, Desk] = {}
        self._opening = asyncio.Lock()
        self._own: dict[tuple[str, str], tuple[Run, Desk]] = {}
        self._mirrored: dict[str, tuple[Run, Desk]] = {}
        self._asked_ns: dict[str, int] = {}
        self._awaited_once: OrderedDict[str, None] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()
        self._halted_elsewhere: set[str] = set()

    async def of(self, caller: Caller, said: Announced) -> tuple[Run, Desk]:
        """The run that a call belongs to. Raises Refusal."""
        desk = await self.desk(place_of(caller.environment))
        run_id, task_id = caller.run_id, caller.task_id
        if not run_id and said.run:
            known = self._keys.runs.get(said.run) or await self._awaited(said)
            if known is not None and known.agent == caller.agent and known.holder != "gateway":
                run_id, task_id = known.run_id, known.task_id
        if run_id:
            return await self._mirror(desk, caller, run_id, task_id, said)
        return await self._begun(desk, caller, said)

    async def _awaited(self, said: Announced) -> RunRecord | None:
        """A run whose SDK announces a call is on its way to be known, when it has just begun."""
        if not said.call_id or not is_uuid7(said.run) or said.run in self._awaited_once:
            return None
        self._awaited_once[said.run] = None
        while len(self._awaited_once) > RUNS_MAX:
            self._awaited_once.popitem(last=False)
        for _ in range(AWAIT_TIMES):
            await asyncio.sleep(AWAIT_S)
            if said.run in self._keys.runs:
                break
        return self._keys.runs.get(said.run)

    async def desk(self, environment: str) -> Desk:
        found = self._desks.get(environment)
        if found is not None:
            return found
        async with self._opening:
            if environment not in self._desks:
                self._desks[environment] = await self._open(environment)
            return self._desks[environment]

    def all(self) -> list[Run]:
        return [run for run, _ in (*self._own.values(), *self._mirrored.values())]

    def mirrored(self, caller: Caller, said: Announced) -> Run | None:
        """The run of another holder that a call belongs to, if its calls have come by before."""
        found = self._mirrored.get(caller.run_id or said.run)
        return None if found is None or found[0].info.agent != caller.agent else found[0]

    def desk_of(self, run: Run) -> Desk | None:
        """The desk at which a run's calls are judged."""
        return next((d for d in self._desks.values() if run.run_id in d.client.runs), None)

    def desks(self) -> list[Desk]:
        return list(self._desks.values())

    async def sweep(self) -> None:
        """Ends what has been idle, and forgets runs that others have ended. Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for key, (run, _) in list(self._own.items()):
                idle_ns = run.world.monotonic_ns() - run.last_ns
                if (run.ended and not run.hold.halted) or (
                    idle_ns > self._idle_ns and not run.in_flight
                ):
                    self._own.pop(key, None)
                    run.end("completed", f"nothing came for {self._idle_ns / 1e9:g} s")
            self._forget_halts()
            for run_id, (run, desk) in list(self._mirrored.items()):
                idle_ns = run.world.monotonic_ns() - run.last_ns
                if run_id not in self._keys.runs and idle_ns > MIRROR_KEPT_NS and not run.in_flight:
                    self._mirrored.pop(run_id, None)
                    self._halted_elsewhere.discard(run_id)
                    desk.client.runs.pop(run_id, None)
                    desk.link.announcing.discard(run_id)

    def end_all(self, reason: str) -> None:
        """The gateway stops: what it began ends with it."""
        for run, _ in list(self._own.values()):
            run.end("unfinished", reason)
        self._own.clear()

    def halted(self, run: Run) -> None:
        """A run of the gateway's own is over when it was halted and nothing is in flight. No other
        takes its place until its calls have ceased; nor that of another holder's run, once its
        holder has ended it and its id is but a name."""
        if run.ended or (run.inherited and run.run_id in self._halted_elsewhere):
            return
        rein = run.hold.rein
        name = run.run_id if run.inherited else run.info.labels.get("name", "")
        record = HaltedRun(
            agent=run.info.agent, name=name, run_id=run.run_id,
            reason=rein.reason, issued_by=rein.issued_by, at=run.world.now_ns(),
        )  # fmt: skip
        if run.inherited:
            self._halted_elsewhere.add(run.run_id)
        else:
            run.end("halted", rein.reason)
            self._own.pop((record.agent, record.name), None)
        self._asked_ns[record.key] = run.world.monotonic_ns()
        self._write(record, record.key)

    def _write(self, record: HaltedRun | None, key: str) -> None:
        if record is not None:
            self._keys.halted[key] = record  # before any call of the same name comes in
        task = asyncio.ensure_future(self._keys.remember(record, key))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _mirror(
        self, desk: Desk, caller: Caller, run_id: str, task_id: str, said: Announced
    ) -> tuple[Run, Desk]:
        found = self._mirrored.get(run_id)
        if found is None:
            await _learn(desk, caller.agent)
            found = self._mirrored.get(run_id)
        if found is None:
            record = self._keys.runs.get(run_id)
            info = RunInfo(
                run_id=run_id, task_id=task_id, agent=caller.agent, room=caller.room,
                goal=record.goal if record is not None else "",
                task_type=record.task_type if record is not None else "",
            )  # fmt: skip
            self._room_for_one()
            run = _hushed(desk.client.mirror(info))
            found = self._mirrored[run_id] = (run, desk)
            desk.link.catch_up(run)
        if said.call_id:
            desk.link.announcing.add(run_id)
            if said.step > found[0].step:
                found[0].step = said.step
        return found

    async def _begun(self, desk: Desk, caller: Caller, said: Announced) -> tuple[Run, Desk]:
        key = (caller.agent, said.run[:NAME_CHARS_MAX])
        self._check_halted(*key)
        found = self._own.get(key)
        if found is None or found[0].ended:
            await _learn(desk, caller.agent)
            found = self._own.get(key)
        if found is None or found[0].ended:
            self._room_for_one()
            if sum(agent == caller.agent for agent, _ in self._own) >= AGENT_RUNS_MAX:
                raise Refusal(
                    429, "busy", f"{AGENT_RUNS_MAX} runs of agent {caller.agent} are live at this "
                    "gateway", advice="WAIT", retry_after_s=10.0,
                )  # fmt: skip
            labels = {"through": "gateway"} | ({"name": key[1]} if key[1] else {})
            run = desk.client.new_run(
                "", said.task_type, caller.agent, caller.room, labels,
                said.traceparent if task_of(said.traceparent) else "",
            )  # fmt: skip
            desk.client.run_began(_hushed(run))
            found = self._own[key] = (run, desk)
        return found

    def _check_halted(self, agent: str, name: str) -> None:
        """Raises Refusal for a run that was halted, whichever gateway held it and however long ago,
        if its calls have not ceased since."""
        key = HaltedRun(agent=agent, name=name, run_id="").key
        halted = self._keys.halted.get(key)
        if halted is None:
            return
        self._asked_ns[key] = self._keys.world.monotonic_ns()
        raise Refusal(
            403, "halted", f"run {halted.run_id} was halted: {halted.reason or 'no reason given'}",
            advice="TERMINAL", by=halted.issued_by,
            appeal=f"`checkrein show {halted.run_id}` tells why. A new run begins when nothing has "
            f"come for {self._idle_ns / 1e9:g} s, or under another name in x-checkrein-run.",
        )  # fmt: skip

    def _forget_halts(self) -> None:
        """Calls that have ceased may begin anew."""
        for key in self._asked_ns.keys() - self._keys.halted.keys():
            del self._asked_ns[key]
        now_ns = self._keys.world.monotonic_ns()
        for key in list(self._keys.halted):
            if now_ns - self._asked_ns.setdefault(key, now_ns) > self._idle_ns:
                self._write(None, key)

    def _room_for_one(self) -> None:
        if len(self._own) + len(self._mirrored) >= RUNS_MAX:
            raise Refusal(503, "busy", f"more than {RUNS_MAX} runs are live at this gateway")


async def _learn(desk: Desk, agent: str) -> None:
    """Raises Refusal: by a pact that is not known nobody can be judged."""
    if not await desk.link.learn(agent):
        raise Refusal(
            503, "no_contact", f"the pact of {agent} is not known here yet: the control bus does "
            "not answer", advice="WAIT", retry_after_s=1.0,
        )  # fmt: skip


def _hushed(run: Run) -> Run:
    """Calls that the SDK has paid for are not paid for twice."""
    run.allowance = HushedAllowance(*run.allowance.parts)
    return run
