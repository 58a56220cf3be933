"""How a run ended, told from how its process did."""

import os
import signal
from dataclasses import dataclass
from typing import get_args

from checkrein.events.types import RunOutcome


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by `code`, or by `signal` (then `code` is None). Neither: not known."""

    code: int | None = None
    signal: int = 0
    dumped: bool = False

    @property
    def shell_code(self) -> int:
        """What a shell would answer: the code, 128 + the signal, 1 when nothing is known."""
        if self.signal:
            return 128 + self.signal
        return 1 if self.code is None else self.code

    @property
    def signal_name(self) -> str:
        return signal_name(self.signal) if self.signal else ""

    @property
    def words(self) -> str:
        if self.signal:
            core = ", memory dumped" if self.dumped else ""
            return f"the process was ended by {self.signal_name}{core}"
        if self.code is None:
            return "the process is gone; how it ended is not known"
        return f"the process exited with {self.code}"


UNKNOWN_EXIT = Exit()


@dataclass(frozen=True, slots=True)
class Ending:
    status: RunOutcome
    reason: str


def ending(
    exited: Exit, *, halted: str = "", ended_by_code: bool, sent: int = 0, named: bool
) -> Ending:
    """`halted`: the reason, when an order stopped the run. `sent`: a signal that was passed on to
    the program before. `named`: the agent's own code began this run, so it ought to have ended it;
    `ended_by_code`: it did."""
    if halted:
        return Ending("halted", halted)
    if exited.code is None and not exited.signal:
        return Ending("lost", exited.words)
    if exited.signal:
        if sent == exited.signal:
            return Ending("failed", f"{exited.words}, which was sent to `checkrein run`")
        hint = " (not by Checkrein; the system kills so when memory runs out)"
        return Ending("failed", exited.words + (hint if exited.signal == signal.SIGKILL else ""))
    if exited.code:
        return Ending("failed", exited.words)
    if named and not ended_by_code:
        return Ending("unfinished", "the process exited with 0, but the run was never finished")
    return Ending("completed", "")


def said(status: str, reason: str) -> Ending:
    """An end as an agent's code tells it; a word that is none is a failure."""
    known = get_args(RunOutcome)
    return Ending(status if status in known else "failed", reason)  # type: ignore[arg-type] # checked


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def bury(pidfd: int) -> Exit:
    """The exit status of a dead child; unknown when it was somebody else's child."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return UNKNOWN_EXIT
    if status is None:
        return UNKNOWN_EXIT
    if status.si_code == os.CLD_EXITED:
        return Exit(code=status.si_status)
    return Exit(signal=status.si_status, dumped=status.si_code == os.CLD_DUMPED)
