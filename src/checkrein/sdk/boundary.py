"""What beginning any call has in common: whose boundary it is, and what a refusal or a fault of
ours becomes."""

from collections.abc import Callable
from typing import TypeVar

from checkrein.policy.types import Verdict
from checkrein.sdk import context, quiet, values
from checkrein.sdk.errors import Denied
from checkrein.sdk.hold import Held, Hold
from checkrein.sdk.purse import Lacking, Paying
from checkrein.sdk.run import Run

C = TypeVar("C")


def denial(verdict: Verdict, name: str) -> Denied:
    reason = verdict.reason or f"refused by {verdict.guard or 'a guard'}"
    advice = verdict.advice
    if verdict.kind == "ask":
        reason, advice = f"a human must approve this first: {reason}", advice or "ESCALATE"
    return Denied(reason, action=name, rule=verdict.rule or verdict.guard, advice=advice)


def goes_on(verdict: Verdict) -> bool:
    """Whether the call is to be made."""
    return verdict.kind in ("allow", "modify", "steer")


def enter(run: Run, call_id: str, kind: str, name: str, wait: bool) -> None:
    """As `Run.enter`; what was reserved is given back when the call does not begin."""
    try:
        run.enter(call_id, kind, name, wait)
    except BaseException:
        run.allowance.not_made(call_id)
        raise


async def begun(begin: Callable[[str, Paying | None], C], call_id: str) -> C:
    """Begins a call without blocking the loop: while the run is held, and while its share of a
    budget is not here yet. `begin(call_id, paid)` is the attempt."""
    paid: Paying | None = None
    while True:
        hold = hold_here()
        if hold is not None and hold.taut:
            await hold.wait_async()
        try:
            return begin(call_id, paid)
        except Held:  # paused in between: wait again
            paid = None
        except Lacking as lacking:
            paid, call_id = lacking.paying, lacking.paying.wish.call_id
            await paid.wait_async()


def hold_here() -> Hold | None:
    """The hold of this coroutine's run."""
    try:
        run = context.current()
        if run.info.ambient:
            run.hold.bind_root()
        return run.hold
    except Exception as error:
        quiet.fault("finding the run", error)
        return None


def unrecorded(error: Exception, call_id: str, run: Run | None, name: str, judged: bool) -> None:
    """Beginning a call failed, and the fault is ours. A call that no guard could judge is denied:
    else whoever makes the guard fail would be rid of it. Raises Denied."""
    quiet.fault("beginning a call", error)
    if run is None:
        return
    run.allowance.not_made(call_id)
    run.leave(call_id)
    if not judged:
        reason = f"the guard could not be asked: {type(error).__name__}"
        raise Denied(reason, action=name, rule="guard-error", advice="ESCALATE") from error


def said(error: BaseException) -> str:
    return values.clean_text(f"{type(error).__name__}: {values.clean_text(error, 4_000)}", 4_200)
