"""The rules of commands: what each verb may do to a run in which state, and who wins a race.

    wanted now   pause            resume                  halt           an act
    running      sent             nothing to resume [1]   sent           sent
    paused       joins that pause sent                    sent           sent
    halted       refused          refused                 joins that halt refused [2]

[1] unless the run says that it stands all the same: then it is sent.
[2] except what a halted run still hears (`orders.AFTER_HALT`).

"Wanted" is what control ordered last, obeyed or not: so a halt wins from the moment it is asked,
whatever is still on its way. Whatever is open for a run when a halt comes is superseded by it; a
pause and a resume supersede one another.
"""

from typing import Literal

import msgspec

from checkrein.bus.messages import Progress
from checkrein.bus.orders import AFTER_HALT, HALTED, OLD_EPOCH, REPLAY, STATE_VERBS
from checkrein.control.commands import RUNGS
from checkrein.control.types import Desired

NOT_GUARANTEED = "stop not guaranteed: no supervisor and no gateway, only the agent's own word"
FENCED_ONLY = "its calls are refused at the gateway; nobody holds its process"

DESIRED_BY: dict[str, Desired] = {"pause": "paused", "resume": "running", "halt": "halted"}


class Ruling(msgspec.Struct, frozen=True):
    """send: order it. join: it is ordered already, share its receipts. nothing: it is so already.
    refuse: it may not be. `why` in plain words for all but `send`."""

    act: Literal["send", "join", "nothing", "refuse"]
    why: str = ""


_SEND = Ruling("send")


def judge(
    verb: str,
    wanted: Desired,
    status: str,
    step: int = 0,
    expected_step: int | None = None,
) -> Ruling:
    """What to do with `verb` for a run that is `wanted` so and says it is `status`."""
    if wanted == "halted":
        if verb == "halt":
            return Ruling("join", "halted already")
        if verb not in AFTER_HALT:
            return Ruling("refuse", f"the run is halted, and a halt outranks {verb}")
        return _SEND
    if verb == "pause" and wanted == "paused":
        return Ruling("join", "paused already")
    if verb == "resume" and wanted == "running" and status != "paused":
        return Ruling("nothing", "it was not paused")
    if verb not in STATE_VERBS and expected_step is not None and step > expected_step:
        return Ruling("refuse", f"meant for step {expected_step}; the run is at step {step}")
    return _SEND


class Word(msgspec.Struct, frozen=True):
    """What one Progress means for a line. `outcome` "" leaves it open; `confirmed` names who saw
    it, "" when the word is only the agent's own."""

    outcome: Literal["", "obeyed", "refused", "failed"] = ""
    confirmed: str = ""
    note: str = ""


_OPEN = Word()


def read(verb: str, progress: Progress, holder: str) -> Word:
    """What a holder's report says of a command. Only what a supervisor or a gateway says of its own
    sight counts as confirmed, and only if that is what the holder is: a process with the SDK cannot
    vouch for itself."""
    eyes = progress.by if progress.confirmed and progress.by in ("supervisor", "gateway") else ""
    if eyes and eyes != holder:
        eyes = ""
    match progress.stage:
        case "refused":
            return _read_refusal(verb, progress.detail)
        case "failed":
            # A halt that failed is tried again until it is confirmed: it has no other end.
            return Word("" if verb == "halt" else "failed", note=progress.detail)
        case "delivered" | "probe":
            return _OPEN
        case _:
            return _read_stage(verb, progress, eyes, holder)


def at_gateway(verb: str, progress: Progress, holder: str) -> Word:
    """What a gateway's report says of a command for a run that another session holds. Its fence is
    shut for sure; of the process it sees nothing. So a run that nobody else sees from outside is
    halted by the fence, and one with a supervisor by the supervisor only."""
    if not progress.confirmed or progress.by != "gateway":
        return _OPEN
    match verb, progress.stage:
        case "halt", "fence" if holder == "sdk":
            return Word("obeyed", "gateway", FENCED_ONLY)
        case ("halt", "fence") | ("pause", "held"):
            return Word("", "gateway")
        case ("inject" | "redirect", "obeyed"):
            return Word("obeyed", "gateway")
        case _:
            return _OPEN


def _read_refusal(verb: str, why: str) -> Word:
    if why == REPLAY or (verb == "halt" and why in (HALTED, OLD_EPOCH)):
        return _OPEN
    note = f"the holder refused: {why or 'it gave no reason'}"
    # Nobody may refuse a halt: it is asked again, until the run is seen stopped or is gone.
    return Word("" if verb == "halt" else "refused", note=note)


def _read_stage(verb: str, progress: Progress, eyes: str, holder: str) -> Word:
    stage = progress.stage
    if verb == "halt":
        if eyes and (stage in RUNGS or stage == "obeyed"):
            return Word("obeyed", eyes)
        if holder == "sdk" and stage in ("unwind", "obeyed"):
            return Word("obeyed", "", NOT_GUARANTEED)
        return _OPEN
    if verb == "pause":
        obeyed = stage in ("held", "obeyed") or (stage == "freeze" and eyes != "")
    elif verb == "resume":
        obeyed = stage in ("resumed", "obeyed")
    else:
        obeyed = stage == "obeyed"
    return Word("obeyed", eyes) if obeyed else _OPEN
