"""POST /decide: may this call be made? And what came of it.

    before      → visit (who, whose run, guard, approvals, budgets, record) → allow deny ask …
    after       → the call that was allowed ends; one that nobody asked about is recorded as such
    begin, end  → of a run

What must be waited for (a person's answer, a paused run) goes on in a task of its own: whoever does
not want to wait asks again with the same `call_id`, and is told what came of it.
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET
from msgspec.structs import replace

from checkrein.events import types as events
from checkrein.gateway.decide.open_calls import OPEN_S, UNFETCHED_S, OpenCall, OpenCalls
from checkrein.gateway.decide.pending import Pending, PendingCalls
from checkrein.gateway.decide.words import Ask, Told, is_verdict, read, refused
from checkrein.gateway.gate import Gate, said_in
from checkrein.gateway.types import Announced, Refusal
from checkrein.gateway.visit import Visit
from checkrein.gateway.wire import Answer, Request
from checkrein.policy.types import Action
from checkrein.sdk import values
from checkrein.sdk.calls import ToolCall
from checkrein.sdk.run import Run

BODY_BYTES_MAX = 8 * 1024 * 1024
NOT_ASKED = "told only afterwards: nobody had asked before"
ANOTHER = "call {call_id} is another one: it was asked with another tool or other arguments"


class Service:
    """On the gateway's loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: OpenCalls[ToolCall] = OpenCalls()
        self._pending = PendingCalls(gate.world)
        self._ids_prefix = f"{gate.world.nonce()[:10]}-d"
        self._ids = itertools.count(1)

    @property
    def waiting(self) -> tuple[int, int]:
        """Calls that were allowed and are not told to have ended, and questions not decided."""
        return len(self._open), len(self._pending)

    async def handle(self, gate: Gate, request: Request, answer: Answer) -> None:
        if request.path != "/decide":
            raise Refusal(404, "no_route", f"{request.path[:200]} is no path here: ask /decide")
        if request.method != "POST":
            raise Refusal(405, "bad_request", "/decide is asked by POST")
        await gate.keys.caller_of(request.headers)
        asked = read(await request.body(BODY_BYTES_MAX))
        said = said_in(request.headers)
        if asked.run:
            said = replace(said, run=asked.run)
        if asked.task_type:
            said = replace(said, task_type=asked.task_type)
        try:
            if asked.phase == "before":
                told = await self._before(request, said, asked)
            elif asked.phase == "after":
                told = await self._after(request.headers, said, asked)
            else:
                told = await self._of_run(request.headers, said, asked)
        except Refusal as refusal:
            if not is_verdict(refusal):
                raise
            told = refused(refusal, call_id=asked.call_id)
        await answer.json(200, told)

    def sweep(self) -> None:
        now_ns = self._gate.world.monotonic_ns()
        self._open.sweep(now_ns)
        self._pending.sweep(now_ns)

    def close(self) -> None:
        self._pending.cancel_all()
        self._open.end_all()

    # -- before -------------------------------------------------------------------------------

    async def _before(self, request: Request, said: Announced, asked: Ask) -> Told:
        headers, key = request.headers, None
        call_id = asked.call_id or said.call_id
        pending = None
        if call_id and len(self._pending):
            key = await self._key(headers, said, call_id)
            pending = self._pending.get(key)
            if pending is not None and not pending.same(asked):
                raise Refusal(409, "bad_request", ANOTHER.format(call_id=call_id))
        kept = pending is not None
        if pending is None:
            pending = Pending(asked, call_id or f"{self._ids_prefix}{next(self._ids):x}")
            pending.task = asyncio.get_running_loop().create_task(
                self._decide(headers, said, asked, pending)
            )
        told = await pending.within(asked.wait_s if asked.wait else 0.0, request.gone)
        if told is None:
            key = key or await self._key(headers, said, pending.call_id)
            if not kept:
                self._pending.keep(key, pending)
            return self._not_yet(pending)
        if kept and key is not None:
            self._pending.drop(key)
        return self._fetched(pending, told, asked)

    async def _decide(
        self, headers: Mapping[str, str], said: Announced, asked: Ask, pending: Pending
    ) -> Told:
        """Raises Refusal for what is no decision about the call."""
        visit: Visit | None = None
        call_id = pending.call_id
        try:
            async with self._gate.visit(headers, "decide", said) as visit:
                pending.visit = visit
                key = (visit.run.run_id, call_id)
                found = self._open.get(key)
                if found is not None:
                    if found.asked != (asked.tool, asked.arguments):
                        raise Refusal(409, "bad_request", ANOTHER.format(call_id=call_id))
                    return _allowed(visit.run, found.call)
                call = await visit.begin_tool(
                    asked.tool, asked.arguments, kind=asked.kind, known_tools=asked.known_tools,
                    call_id=call_id, why=asked.why,
                )  # fmt: skip
                self._open.put(key, self._opened(visit, call, asked, fetched=pending.waited > 0))
                return _allowed(visit.run, call)
        except Refusal as refusal:
            if not is_verdict(refusal):
                raise
            if visit is None:
                return refused(refusal, call_id=call_id)
            return refused(refusal, visit.run.seat.pact, visit.run.run_id, call_id)

    def _opened(
        self, visit: Visit, call: ToolCall, asked: Ask, fetched: bool
    ) -> OpenCall[ToolCall]:
        until_s = OPEN_S if fetched else UNFETCHED_S
        now_ns = self._gate.world.monotonic_ns()
        return OpenCall(
            visit, call, now_ns + round(until_s * 1e9), visit.fail_tool,
            (asked.tool, asked.arguments), fetched,
        )  # fmt: skip

    def _fetched(self, pending: Pending, told: Told, asked: Ask) -> Told:
        found = self._open.get((told.run_id, told.call_id))
        if found is not None and not found.fetched:
            found.fetched = True
            found.until_ns = self._gate.world.monotonic_ns() + round(OPEN_S * 1e9)
        if asked.directives and pending.visit is not None:
            return _with_directives(pending.visit.run, told)
        return told

    def _not_yet(self, pending: Pending) -> Told:
        if pending.visit is None:
            return Told(verdict="deny", reason="not decided in time", advice="RETRYABLE")
        visit, run = pending.visit, pending.visit.run
        if run.hold.taut:
            rein = run.hold.rein
            reason = f"the run is {rein.state}: {rein.reason or 'no reason given'}"
            return _told(
                run, "ask", pending.call_id, reason=reason, advice="WAIT", by=rein.issued_by
            )
        asked = pending.asked
        verdict = visit.would(asked.tool, asked.arguments, asked.known_tools)
        reason = verdict.reason if verdict.kind == "ask" else "it is waited for"
        told = _told(run, "ask", pending.call_id, advice="WAIT",
                     reason=f"a human must approve this first: {reason}")  # fmt: skip
        return replace(told, rule=verdict.rule)

    async def _key(
        self, headers: Mapping[str, str], said: Announced, call_id: str
    ) -> tuple[str, str, str]:
        caller = await self._gate.caller(headers)
        return caller.agent, caller.run_id or said.run, call_id

    # -- after --------------------------------------------------------------------------------

    async def _after(self, headers: Mapping[str, str], said: Announced, asked: Ask) -> Told:
        """Also from an agent that is shut out by now: what it did is recorded."""
        caller = await self._gate.keys.caller_of(headers)
        call_id = asked.call_id or said.call_id
        try:
            run, _ = await self._gate.runs.of(caller, said)
        except Refusal:  # halted meanwhile: what was made before that ends all the same
            ended = self._open.take_of(caller.agent, call_id)
            if ended is not None:
                _end(ended, asked)
            raise
        found = self._open.take((run.run_id, call_id)) or self._open.take_of(caller.agent, call_id)
        if found is None:
            await self._pending.take_back((caller.agent, caller.run_id or said.run, call_id))
            if not asked.tool:
                raise Refusal(404, "bad_request", f"no call {call_id} is open, and no tool named")
            visit = Visit(run, caller, said, "decide", run.world.monotonic_ns())
            _late(visit, asked, call_id or run.next_call_id())
        else:
            _end(found, asked)
        told = _told(run, "allow", call_id, reason="" if found is not None else NOT_ASKED)
        return _with_directives(run, told) if asked.directives else told

    # -- runs ---------------------------------------------------------------------------------

    async def _of_run(self, headers: Mapping[str, str], said: Announced, asked: Ask) -> Told:
        """The run is begun or ended by whoever has no other way to say so. The run of another
        holder is only told what its user wants."""
        caller = await self._gate.caller(headers)
        run, _ = await self._gate.runs.of(caller, said)
        if asked.phase == "begin":
            if asked.goal:
                run.ear.listen({"role": "user", "content": asked.goal})
                if not run.goal and not run.inherited:
                    run.name(asked.goal)
        elif not run.inherited:
            self._open.end_run(run.run_id)
            run.end("failed" if asked.error else "completed", asked.error)
        told = _told(run, "allow", "")
        if run.hold.halted:
            rein = run.hold.rein
            told = _told(run, "deny", "", reason=f"the run was halted: {rein.reason}",
                         advice="TERMINAL", by=rein.issued_by, code="halted")  # fmt: skip
        return _with_directives(run, told) if asked.directives else told


class ToolFailed(Exception):
    """What the tool said of its failure."""

    def __str__(self) -> str:
        return str(self.args[0])


def _end(found: OpenCall[ToolCall], asked: Ask) -> None:
    if asked.error:
        found.visit.fail_tool(found.call, ToolFailed(asked.error))
    else:
        found.visit.end_tool(found.call, asked.result)


def _allowed(run: Run, call: ToolCall) -> Told:
    kind: Literal["allow", "modify", "steer"] = "allow"
    if call.changed:
        kind = "modify"
    elif call.guidance:
        kind = "steer"
    told = _told(run, kind, call.call_id, reason=call.guidance if kind == "steer" else "")
    if call.changed:
        told = replace(told, arguments=call.arguments)
    return replace(told, guidance=call.guidance) if call.guidance else told


def _told(
    run: Run, verdict: Literal["allow", "deny", "ask", "modify", "steer"], call_id: str, *,
    reason: str = "", advice: str = "", by: str = "", code: str = "",
) -> Told:  # fmt: skip
    pact = run.seat.pact
    return Told(
        verdict=verdict, reason=reason, advice=advice, call_id=call_id, run_id=run.run_id,
        pact=pact.pact, pact_version=pact.version, by=by or UNSET, code=code or UNSET,
    )  # fmt: skip


def _with_directives(run: Run, told: Told) -> Told:
    directives = run.take_directives()
    return replace(told, directives=directives) if directives else told


def _late(visit: Visit, asked: Ask, call_id: str) -> None:
    """A call that was made without asking: it stands in the record, and the guard knows of it."""
    run, tool, error = visit.run, asked.tool, values.clean_text(asked.error, 4_000)
    arguments = values.plain(asked.arguments)
    plain, field, _ = values.packed(asked.result)
    visit.facts |= {"kind": "tool", "name": tool}
    run.record(events.ToolSelected, call_id=call_id, tool=tool, why=asked.why)
    run.record(events.ToolArguments, call_id=call_id, tool=tool, arguments=arguments)
    run.record(events.ToolInvoked, call_id=call_id, tool=tool, kind=asked.kind or "")
    run.record(
        events.ToolReturned, call_id=call_id, tool=tool, result=None if error else field,
        status="error" if error else "ok", error=error,
    )  # fmt: skip
    action = Action(
        kind="tool", name=tool, arguments=arguments, call_id=call_id, declared_kind=asked.kind
    )
    run.seat.returned(action, plain, error, run.world.monotonic_ns())
    visit.named(call_id)
    visit.passed("ok", NOT_ASKED)
