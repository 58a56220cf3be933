"""Model calls that other gateways make and ask us about: once before the request goes out, once
with its answer. What the model wants called is judged by the pact, though it is not made here."""

import itertools
from asyncio import timeout
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from checkrein.gateway.decide.open_calls import OPEN_S, OpenCall, OpenCalls
from checkrein.gateway.gate import Gate
from checkrein.gateway.types import Announced, Refusal
from checkrein.gateway.visit import APPEAL, Visit
from checkrein.policy.types import Action, Verdict
from checkrein.sdk import values
from checkrein.sdk.calls import ModelCall
from checkrein.sdk.errors import Halted
from checkrein.sdk.instruments.exchange import Answer, Request, estimated
from checkrein.sdk.model_call import marked

WAIT_S = 30.0
"""How long whoever asks is let wait for a person or a paused run."""


class Guardrails:
    """On the gateway's loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._open: OpenCalls[ModelCall] = OpenCalls()
        self._ids = itertools.count(1)

    async def before(
        self, headers: Mapping[str, str], said: Announced, request: Request, texts: Sequence[str],
        call_id: str,
    ) -> list[str]:  # fmt: skip
        """The texts as the model may see them: redacted, and with what an operator has put to the
        agent below the last one. Raises Refusal."""
        async with self._gate.visit(headers, "decide", said) as visit:
            screen = self._gate.screen_for(visit)
            if screen.active:
                clean = screen.request({"messages": request.messages, "texts": list(texts)})
                request, texts = replace(request, messages=clean["messages"]), clean["texts"]
                visit.ran("redact")
                visit.facts["redacted"] = dict(screen.counts)
            try:
                async with timeout(WAIT_S):
                    call = await visit.begin_model(request)
            except TimeoutError:
                raise held_too_long(request.model or "the model", WAIT_S) from None
            key = (visit.run.run_id, call_id or f"last-{next(self._ids)}")
            until_ns = self._gate.world.monotonic_ns() + round(OPEN_S * 1e9)
            self._open.put(key, OpenCall(visit, call, until_ns, visit.fail_model, request))
            return with_directives(texts, call.directives)

    async def after(
        self, headers: Mapping[str, str], said: Announced, texts: Sequence[str],
        tool_calls: list[dict[str, Any]], call_id: str,
    ) -> list[str]:  # fmt: skip
        """The model has answered: the call ends here, and what it wants called is judged. Returns
        the texts as the agent may see them. Raises Refusal for an answer that must not reach it."""
        answer = Answer(content="\n".join(texts), tool_calls=tool_calls)
        caller = await self._gate.caller(headers)
        run, _ = await self._gate.runs.of(caller, said)
        found = self._open.take((run.run_id, call_id)) if call_id else None
        if found is None and not call_id:
            found = self._open.take_last(run.run_id)
        if found is not None:
            read, written = estimated(found.asked, answer)
            found.visit.end_model(
                found.call, content=answer.content, tool_calls=answer.tool_calls, model="",
                input_tokens=read, output_tokens=written,
            )  # fmt: skip
        visit = Visit(run, caller, said, "decide", run.world.monotonic_ns())
        if run.hold.halted:
            rein = run.hold.rein
            raise visit.refusal(Halted(rein.reason, run.run_id, rein.issued_by))
        known = found.asked.tools if found is not None else ()
        screen = self._gate.screen_for(visit)
        for wanted in tool_calls:
            name = str(wanted.get("name") or "")
            seen = screen.value({"name": name, "input": wanted.get("arguments")})
            self._judge(visit, name, seen["input"] if isinstance(seen, dict) else None, known)
        return [screen.value(text) for text in texts]

    def sweep(self) -> None:
        self._open.sweep(self._gate.world.monotonic_ns())

    def close(self) -> None:
        self._open.end_all()

    def _judge(self, visit: Visit, tool: str, arguments: Any, known: Sequence[str]) -> None:
        """Raises Refusal unless the pact lets the call be made as it is. What is served here is
        judged when it is called."""
        if self._gate.served_tools.serves(visit.run.info.agent, tool):
            return
        verdict = visit.would(tool, arguments, known)
        if verdict.kind in ("allow", "steer"):
            return
        action = Action(kind="tool", name=tool, arguments=values.plain(arguments))
        visit.run.decided(action, verdict)
        raise _not_as_it_is(visit, tool, verdict)


def with_directives(texts: Sequence[str], directives: Sequence[str]) -> list[str]:
    """What the model is to read, with an operator's directives below the last of it."""
    if not texts or not directives:
        return list(texts)
    return [*texts[:-1], "\n".join((texts[-1], *map(marked, directives)))]


def held_too_long(name: str, wait_s: float) -> Refusal:
    return Refusal(
        403, "held_too_long", f"{name} was not let go on within {wait_s:g} s: somebody must "
        "approve it, or resume the run", advice="WAIT",
    )  # fmt: skip


def _not_as_it_is(visit: Visit, tool: str, verdict: Verdict) -> Refusal:
    reason = verdict.reason or f"refused by {verdict.guard}"
    if verdict.kind == "ask":
        reason = f"a human must approve this first: {reason}"
    elif verdict.kind == "modify":
        reason = f"it may only be called with other arguments: {reason}"
    return Refusal(
        403, "denied", f"{tool} is not allowed: {reason}", rule=verdict.rule,
        advice=verdict.advice or "ESCALATE", appeal=APPEAL.format(run=visit.run.run_id),
    )  # fmt: skip
