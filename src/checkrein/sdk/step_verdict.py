"""A step that the guard did not simply allow."""

from typing import TYPE_CHECKING

from checkrein.policy.types import Action, Verdict
from checkrein.sdk.asking import Questions, approve
from checkrein.sdk.errors import Denied

if TYPE_CHECKING:
    from checkrein.sdk.run import Run


def settle_step(run: "Run", verdict: Verdict, call_id: str) -> Questions[None]:
    """Records it, tells the agent or asks somebody. Raises Denied when the step may not begin."""
    name = f"step {run.step + 1}"
    arguments = {"step": run.step + 1}
    action = Action(kind="model", name="step", arguments=arguments, call_id=call_id)
    run.decided(action, verdict)
    if verdict.kind == "steer":
        run.advise(verdict.guidance or verdict.reason)
        return
    refusal: Verdict | None = verdict
    if verdict.kind == "ask":
        refusal = yield from approve(run, action, verdict, lambda _, now: run.seat.step(now))
    if refusal is not None:
        run.refused(refusal)
        raise Denied(
            refusal.reason, action=name, rule=refusal.rule or refusal.guard,
            advice=refusal.advice,
        )  # fmt: skip
