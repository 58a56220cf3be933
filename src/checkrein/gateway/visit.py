"""One call on its way through: whose it is, what the pact says of it, and what is written down.

The guard, the record, approvals, shared budgets and holding are those of `checkrein.sdk`, in a run
that this gateway keeps for the caller; so a call is judged here as it would be in the agent.
"""

from collections.abc import Sequence
from typing import Any

from checkrein.events import types as events
from checkrein.gateway.hush import announced as hushed
from checkrein.gateway.types import Announced, Caller, Protocol, Refusal
from checkrein.policy.types import Action, ToolKind, Verdict
from checkrein.sdk.calls import ModelCall, ToolCall
from checkrein.sdk.errors import Denied, Halted
from checkrein.sdk.instruments.exchange import Request
from checkrein.sdk.run import Run

APPEAL = "`checkrein show {run}` tells why; whoever owns the agent can allow it or resume the run."


class Visit:
    """A call that was let in. Made by `Gate.visit`, inside which the code runs in `run`."""

    def __init__(
        self, run: Run, caller: Caller, said: Announced, protocol: Protocol, started_ns: int
    ) -> None:
        self.run = run
        self.caller = caller
        self.said = said
        self.protocol = protocol
        self.facts: dict[str, Any] = {}
        """What the passage will tell besides: `upstream`, `redacted`, `reported_model`, …"""
        self.status = ""
        """How it passed; "" until then."""
        self._started_ns = started_ns
        self._call_id = said.call_id
        self._ran: dict[str, None] = {}

    @property
    def announced(self) -> bool:
        """True when the agent's SDK has judged and recorded this call."""
        return bool(self.said.call_id)

    @property
    def call_id(self) -> str:
        return self._call_id

    def ran(self, *guards: str) -> None:
        """Writes down that these looked at the call, or at what came back."""
        self._ran.update(dict.fromkeys(guards))

    def _judged_by_pact(self, kind: str, name: str) -> None:
        seat = self.run.seat
        self.ran(f"pact {seat.pact.pact} {seat.pact.version}".rstrip(), *seat.asked(kind, name))

    def named(self, call_id: str) -> None:
        """Which call this is, for one that is not begun here."""
        self._call_id = self._call_id or call_id

    async def begin_model(self, request: Request) -> ModelCall:
        """Asks the guard, waits where the run is held or somebody must approve, records. Then the
        request may go out, with `directives` put before the model. Raises Refusal."""
        self.facts |= {
            "kind": "model", "name": request.model, "requested_model": request.model,
            "streamed": request.stream,
        }  # fmt: skip
        self._judged_by_pact("model", request.model)
        self._call_id = self._call_id or self.run.next_call_id()
        with hushed(self.announced):
            try:
                call = await ModelCall.abegin(
                    request.provider, request.model, request.messages, request.parameters,
                    request.tools, request.stream, self._call_id,
                )  # fmt: skip
            except (Denied, Halted) as error:
                raise self.refusal(error) from error
        if self.announced and self.said.step:
            self.run.step = self.said.step  # the agent's own count
        return call

    def end_model(self, call: ModelCall, **answer: Any) -> None:
        """As `ModelCall.end`."""
        with hushed(self.announced):
            call.end(**answer)

    def fail_model(self, call: ModelCall, error: BaseException) -> None:
        with hushed(self.announced):
            call.fail(error)

    async def begin_tool(
        self, name: str, arguments: Any, *, kind: ToolKind | None = None,
        known_tools: Sequence[str] = (), call_id: str = "", why: str = "",
    ) -> ToolCall:  # fmt: skip
        """As `begin_model`, of a tool call; `arguments` of what it returns are those to call with.
        Raises Refusal."""
        call_id = call_id or self.run.next_call_id()
        if (
            self.facts.get("kind") != "model"
        ):  # else a model proposes it, and the passage is the model's
            self.facts |= {"kind": "tool", "name": name}
            call_id = self._call_id = self._call_id or call_id
        self._judged_by_pact("tool", name)
        with hushed(self.announced):
            try:
                call = await ToolCall.abegin(
                    name, arguments, kind=kind, known_tools=known_tools,
                    call_id=call_id, why=why,
                )  # fmt: skip
            except (Denied, Halted) as error:
                raise self.refusal(error) from error
        return call

    def end_tool(self, call: ToolCall, result: Any) -> None:
        with hushed(self.announced):
            call.end(result)

    def fail_tool(self, call: ToolCall, error: BaseException) -> None:
        with hushed(self.announced):
            call.fail(error)

    def would(self, name: str, arguments: Any, known_tools: Sequence[str] = ()) -> Verdict:
        """What the pact says of a tool call that is not made here; nothing is counted."""
        action = Action(
            kind="tool", name=name, arguments=arguments, call_id="",
            known_tools=tuple(known_tools),
        )  # fmt: skip
        return self.run.seat.would(action, self.run.world.monotonic_ns())

    def passed(self, status: str, reason: str = "") -> None:
        """Writes down that the call passed (once): `ok refused cut failed`. Never raises."""
        if self.status:
            return
        self.status = status
        duration_ns = self.run.world.monotonic_ns() - self._started_ns
        self.run.record(
            events.Passage, call_id=self._call_id, path=self.protocol, announced=self.announced,
            status=status, reason=reason, duration_ns=duration_ns,
            **({"guards": list(self._ran)} | self.facts),
        )  # fmt: skip

    def refusal(self, error: Denied | Halted) -> Refusal:
        """A guard's no, or an order's, as the protocols tell it."""
        appeal = APPEAL.format(run=self.run.run_id)
        if isinstance(error, Halted):
            reason = f"run {self.run.run_id} was halted: {error.reason or 'no reason given'}"
            return Refusal(
                403, "halted", reason, advice="TERMINAL", by=error.issued_by, appeal=appeal
            )
        wait_s = 5.0 if error.advice == "WAIT" else None
        return Refusal(
            403, "denied", f"{error.action or 'this'} is not allowed: {error.reason}",
            rule=error.rule, advice=error.advice, appeal=appeal, retry_after_s=wait_s,
        )  # fmt: skip
