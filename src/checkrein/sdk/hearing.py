"""What the user and the system say to a model, told to the guard: a value that they named is
theirs, whatever a tool's result says besides."""

from typing import Any

from checkrein.policy.spoken import MESSAGES_MAX, spoken
from checkrein.sdk.guard import Seat


class Ear:
    """One run's: each text is passed on once. Bound: 2,000 texts are remembered; beyond, a text may
    be passed on again, which changes nothing."""

    __slots__ = ("_heard", "_seat")

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._heard: set[int] = set()

    def listen(self, messages: Any) -> None:
        """The messages of a model call about to be made."""
        if not self._seat.listens:
            return
        for role, text in spoken(messages):
            mark = hash((role, text))
            if mark in self._heard:
                continue
            if len(self._heard) >= MESSAGES_MAX:
                self._heard.clear()
            self._heard.add(mark)
            self._seat.heard(role, text)
