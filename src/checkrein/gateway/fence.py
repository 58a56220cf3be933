"""What is in flight, and how it is cut: the first rung of a halt, and all of `contain`.

A call is cancelled as a task: whatever it has open upstream closes with it. On the gateway's loop
only, but for `changed`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from checkrein.bus.identities import Contained
from checkrein.gateway.types import Cut, Refusal
from checkrein.sdk.run import Run

CUT_WAIT_S = 2.0
AGENT_CALLS_MAX = 512
"""Of one agent in flight at once, held ones too: half of what may be open upstream."""
RELEASE = "`checkrein release agent:{agent}` lets it in again; it cannot do so itself."


class Fence:
    """`reported(run, cut, open)` and `contained(agent, command_id, cut)` tell when it has taken
    effect: nothing of it is in flight any more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reported: Callable[[Run, int, int], None],
        contained: Callable[[str, Contained, int], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._reported, self._contained_told = reported, contained
        self._calls: dict[str, set[asyncio.Task[object]]] = {}
        self._agents: dict[str, set[str]] = {}
        self._cut: dict[asyncio.Task[object], Refusal] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.contained: dict[str, Contained] = {}
        self.in_flight = 0
        self.cuts = 0

    def check(self, agent: str) -> None:
        """Raises Refusal for an agent that is shut out."""
        found = self.contained.get(agent)
        if found is not None:
            raise shut_out(found)

    def enter(self, run: Run) -> asyncio.Task[object]:
        """The current task is a call of this run, until `leave`. Raises Refusal when the agent is
        shut out, or has too many in flight."""
        agent, task = run.info.agent, asyncio.current_task()
        if task is None:
            raise RuntimeError("a call of the gateway runs in a task")
        self.check(agent)
        if sum(len(self._calls[each]) for each in self._agents.get(agent, ())) >= AGENT_CALLS_MAX:
            raise Refusal(
                429, "busy", f"{AGENT_CALLS_MAX} calls of agent {agent} are under way",
                advice="WAIT", retry_after_s=1.0,
            )  # fmt: skip
        self._calls.setdefault(run.run_id, set()).add(task)
        self._agents.setdefault(agent, set()).add(run.run_id)
        self.in_flight += 1
        return task

    def leave(self, run: Run, task: "asyncio.Task[object]") -> None:
        calls = self._calls.get(run.run_id)
        if calls is None or task not in calls:
            return
        self.in_flight -= 1
        self._cut.pop(task, None)  # it was whole before it could be cut
        calls.discard(task)
        if not calls:
            del self._calls[run.run_id]
            runs = self._agents.get(run.info.agent, set())
            runs.discard(run.run_id)
            if not runs:
                self._agents.pop(run.info.agent, None)
            if run.hold.taut and not run.hold.halted:
                self._reported(run, 0, 0)

    def taken(self, task: "asyncio.Task[object]") -> Refusal | None:
        """Why a task was cancelled, if it was by this fence; then that is taken back."""
        why = self._cut.pop(task, None)
        if why is not None:
            task.uncancel()
        return why

    def changed(self, run: Run) -> None:
        """An order has changed a run. From any thread."""
        with suppress(RuntimeError):  # the loop is closed: nothing is in flight any more
            self._loop.call_soon_threadsafe(self._look, run)

    def contain(self, agent: str, record: Contained | None) -> None:
        """The agent is shut out from now on (None: let in again)."""
        if record is None:
            self.contained.pop(agent, None)
            return
        self.contained[agent] = record
        calls = [c for run in self._agents.get(agent, ()) for c in self._calls.get(run, ())]
        self._begin(calls, shut_out(record), lambda cut: self._contained_told(agent, record, cut))

    def revoke(self, agent: str) -> None:
        """What is in flight of an agent that was revoked is cut; who asks again has no key."""
        why = Cut(
            401, "unauthenticated", f"agent {agent} was revoked", advice="TERMINAL",
            appeal="`checkrein agent list` shows by whom.",
        )  # fmt: skip
        calls = [c for run in self._agents.get(agent, ()) for c in self._calls.get(run, ())]
        if calls:
            self._begin(calls, why, lambda cut: None)

    def _look(self, run: Run) -> None:
        calls = list(self._calls.get(run.run_id, ()))
        if run.hold.halted:
            rein = run.hold.rein
            why = f"run {run.run_id} was halted: {rein.reason or 'no reason given'}"
            refusal = Cut(
                403, "halted", why, advice="TERMINAL", by=rein.issued_by,
                appeal=f"`checkrein show {run.run_id}` tells why.",
            )  # fmt: skip
            self._begin(calls, refusal, lambda cut: self._reported(run, cut, 0))
        else:
            self._reported(run, 0, len(run.in_flight))

    def _begin(
        self, calls: list["asyncio.Task[object]"], why: Refusal, told: Callable[[int], None]
    ) -> None:
        cut = [task for task in calls if not task.done() and task not in self._cut]
        for task in cut:
            self._cut[task] = why
            task.cancel(why.reason)
        self.cuts += len(cut)
        working = self._loop.create_task(self._wait(cut, told))
        self._working.add(working)
        working.add_done_callback(self._working.discard)

    async def _wait(self, cut: list["asyncio.Task[object]"], told: Callable[[int], None]) -> None:
        if cut:
            await asyncio.wait(cut, timeout=CUT_WAIT_S)
        told(len(cut))


def shut_out(found: Contained) -> Cut:
    return Cut(
        403, "contained", f"agent {found.agent} is contained: {found.reason or 'no reason given'}",
        advice="TERMINAL", by=found.issued_by, appeal=RELEASE.format(agent=found.agent),
    )  # fmt: skip
