"""Asking the control role: what runs, and to act."""

import asyncio
import contextlib

import msgspec

from checkrein.bus import subjects
from checkrein.bus.messages import (
    CommandRequest,
    CommandState,
    LiveRun,
    MessageError,
    decode,
    encode,
)
from checkrein.bus.types import Bus, Message, Unreachable

WAIT_S = 2.0
CHANGES_WAIT_S = 0.1


class ControlAway(Exception):
    """The control role did not answer: nothing is known of what was asked."""


class Controls:
    """A client of the role `control`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Begins to hear of changes; needed once before `settled`."""
        await self._bus.subscribe(subjects.LIVE_CHANGED, self._note_change)

    async def runs(self, wait_s: float = WAIT_S) -> list[LiveRun]:
        """The runs that control holds. Raises ControlAway."""
        try:
            raw = await self._bus.request(subjects.CONTROL_RUNS, encode({}), wait_s)
            return decode(raw, list[LiveRun])
        except (Unreachable, MessageError) as error:
            raise ControlAway(f"the control role does not answer: {error}") from error

    async def command(self, request: CommandRequest) -> CommandState:
        """Orders, and waits up to `request.wait_ms` for receipts. Raises ControlAway; the command
        may have been taken all the same, so ask again with the same `command_id`."""
        wait_s = request.wait_ms / 1000 + WAIT_S
        try:
            raw = await self._bus.request(subjects.CONTROL_COMMAND, encode(request), wait_s)
            return decode(raw, CommandState)
        except (Unreachable, MessageError) as error:
            raise ControlAway(f"the control role does not answer: {error}") from error

    async def commands(self) -> list[CommandState]:
        """All commands kept, newest first. Raises ControlAway."""
        try:
            bucket = await self._bus.bucket(subjects.BUCKET_COMMANDS)
            entries = await bucket.entries()
        except Unreachable as error:
            raise ControlAway(f"the control bus does not answer: {error}") from error
        states = [_state(entry.value) for entry in entries if entry.value]
        return sorted((s for s in states if s), key=lambda s: s.asked_at, reverse=True)

    async def one(self, command_id: str) -> CommandState | None:
        """One command with its receipts so far. Raises ControlAway."""
        try:
            bucket = await self._bus.bucket(subjects.BUCKET_COMMANDS)
            entry = await bucket.get(command_id)
        except Unreachable as error:
            raise ControlAway(f"the control bus does not answer: {error}") from error
        return _state(entry.value) if entry and entry.value else None

    async def settled(self, command_id: str, wait_s: float) -> CommandState | None:
        """One command as soon as it is done or has changed, or as it is after `wait_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        self._changed.clear()
        before = state = await self.one(command_id)
        while state is not None and not state.done and state == before:
            left = deadline - loop.time()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, CHANGES_WAIT_S))
            self._changed.clear()
            state = await self.one(command_id)
        return state

    async def _note_change(self, _: Message) -> None:
        self._changed.set()


def _state(value: bytes) -> CommandState | None:
    """None for what another version has written in a form we cannot read."""
    try:
        return decode(value, CommandState)
    except (MessageError, msgspec.MsgspecError):
        return None
