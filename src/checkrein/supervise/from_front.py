"""What comes to a supervisor from the process before it (`front`): signals, and how children ended
whose parent the front had become."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from checkrein.supervise import front
from checkrein.supervise.outcome import Exit
from checkrein.supervise.supervisor import Supervisor
from checkrein.supervise.terminal import Terminal
from checkrein.supervise.unit import Unit

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
             signal.SIGUSR2)  # fmt: skip
TERMINAL_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class FromFront:
    """`words`: the pipe on which the front speaks; `say` tells the user."""

    def __init__(
        self, pid: int, words: int, terminal: Terminal, say: Callable[[str], None]
    ) -> None:  # fmt: skip
        self.pid, self._words, self._terminal, self._say = pid, words, terminal, say

    def listen(self, supervisor: Supervisor, unit: Unit) -> None:
        """From now on signals go to the unit. Needs the running loop."""
        loop = asyncio.get_running_loop()
        for number in PASSED_ON:
            loop.add_signal_handler(number, supervisor.forward, unit, number)
        loop.add_signal_handler(signal.SIGCONT, self._continue, unit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, front.PASSED_ON)
        loop.add_signal_handler(signal.SIGCHLD, self._child_changed, supervisor, unit)
        loop.add_reader(self._words, self.hear, supervisor)

    def hear(self, supervisor: Supervisor) -> None:
        """The exits that it has told until now."""
        try:
            data = os.read(self._words, 4096)
        except BlockingIOError:
            return
        if not data:
            with suppress(ValueError):
                asyncio.get_running_loop().remove_reader(self._words)
            self._say("the process that was started was killed; the run goes on, supervised")
            return
        for line in data.decode().splitlines():
            pid, code, number = (int(word) for word in line.split())
            exited = Exit(code=code if code >= 0 else None, signal=number)
            supervisor.told_exits[pid] = exited

    def _child_changed(self, supervisor: Supervisor, unit: Unit) -> None:
        """Orphans that ended are buried. If the program was stopped by the terminal, so is the
        front, and the shell sees it."""
        supervisor.reap()
        if unit.exit is not None or unit.ladder.frozen or unit.ladder.halting:
            return
        with suppress(ChildProcessError):
            told = os.waitid(os.P_PIDFD, unit.tree.pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            if told is not None and told.si_status in TERMINAL_STOPS:
                with suppress(ChildProcessError):
                    os.waitid(os.P_PIDFD, unit.tree.pidfd, os.WSTOPPED | os.WNOHANG)
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGSTOP)

    def _continue(self, unit: Unit) -> None:
        """The shell has continued us: the program gets the terminal back, if we have it."""
        if unit.exit is not None:
            return
        self._terminal.hand_on(unit.tree.main)
        if not unit.ladder.frozen:
            unit.tree.forward(signal.SIGCONT)
