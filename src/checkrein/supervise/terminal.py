"""The user's terminal: the program has it while it runs, and it is given back as it was."""

import os
import termios
from contextlib import suppress
from typing import Any

from checkrein.supervise import launch


class Terminal:
    """`fd`: -1 when there is none. Make it before this process leaves the shell's group."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._shell_group = os.getpgrp()
        self._modes = _modes(fd)

    def hand_on(self, group: int) -> None:
        """To this process group, if the shell has given the terminal to us."""
        if self.fd < 0:
            return
        with suppress(OSError):
            if os.tcgetpgrp(self.fd) == self._shell_group:
                launch.take_foreground(self.fd, group)

    def give_back(self, code: int) -> None:
        """To the shell. `code`: the program's exit code; one that a signal has ended leaves modes
        that are not the shell's."""
        if self.fd < 0:
            return
        launch.take_foreground(self.fd, self._shell_group)
        if self._modes is not None and code > 128:
            with suppress(termios.error):
                termios.tcsetattr(self.fd, termios.TCSADRAIN, self._modes)


def _modes(fd: int) -> list[Any] | None:
    if fd < 0:
        return None
    with suppress(termios.error):
        return list(termios.tcgetattr(fd))
    return None
