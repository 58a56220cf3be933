"""The process that the user started: it stands between the terminal and the supervisor.

    checkrein run        this one: passes signals on, starts the supervisor again if it is killed
      supervisor         watches, ships, obeys
        the program      in its own group, with the terminal

The supervisor is not in the terminal's way: Ctrl-Z stops the program and this process, and orders
are still heard. If this process is killed, the supervisor goes on. If the supervisor is killed,
what it held comes to this process (a subreaper, too), and a new supervisor takes it over. Kill
both, and what the program's pact says of lost contact is done by the SDK and by the kernel
(`death_signal`).
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from checkrein.supervise import proc
from checkrein.supervise.launch import name_process

RESTARTS_MAX = 3
PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGCONT,
)  # fmt: skip

Serve = Callable[[int, int], int]
"""`serve(words, times)`: the supervisor's work, in its own process. `words` is a pipe on which the
front says how children ended that came to it; its end means that the front is gone. `times` is how
often a supervisor of this run died before. Returns the exit code."""


class _Front:
    def __init__(self, serve: Serve, gave_up: Callable[[], None]) -> None:
        self._serve = serve
        self._gave_up = gave_up
        self._supervisor = 0
        self._words = -1
        self._orphans_ended: dict[int, str] = {}

    def run(self) -> int:
        proc.become_subreaper()
        for number in PASSED_ON:
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGCONT:
                signal.signal(number, self._pass_on)
        died = 0
        while True:
            self._start(died)
            status = self._wait()
            if os.WIFEXITED(status):
                return os.WEXITSTATUS(status)
            died += 1
            sys.stderr.write(
                f"checkrein: the supervisor was killed (signal {os.WTERMSIG(status)})"
                f"{'; starting it again' if died <= RESTARTS_MAX else ''}\n"
            )
            if died > RESTARTS_MAX:
                self._gave_up()
                return 128 + os.WTERMSIG(status)

    def _start(self, died: int) -> None:
        """A supervisor; it hears what has been said already."""
        if self._words >= 0:
            os.close(self._words)
        read, self._words = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back until the supervisor can pass them on: a default action would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(self._words)
                for number in PASSED_ON:
                    if callable(signal.getsignal(number)):
                        signal.signal(number, signal.SIG_DFL)
                code = self._serve(read, died)
            finally:
                with suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        self._supervisor = pid
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)
        for word in self._orphans_ended.values():
            self._say(word)

    def _wait(self) -> int:
        """Until the supervisor is gone; whoever else ends came to us from a dead supervisor."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._supervisor:
                return status
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self._orphans_ended[pid] = f"{pid} {code} {number}\n"
            self._say(self._orphans_ended[pid])

    def _say(self, word: str) -> None:
        with suppress(OSError):
            os.write(self._words, word.encode())

    def _pass_on(self, number: int, _frame: object) -> None:
        if self._supervisor:
            with suppress(ProcessLookupError):
                os.kill(self._supervisor, number)


def stand(serve: Serve, gave_up: Callable[[], None]) -> int:
    """Runs `serve` in a process of its own and stands before it; returns its exit code. `gave_up`
    is called when supervisors were killed again and again. Call before any thread is started."""
    name_process("checkrein-run")
    return _Front(serve, gave_up).run()
