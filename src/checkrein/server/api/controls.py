"""Asking the control role: what runs, and to act."""

import asyncio
import contextlib
from typing import TypeVar

from checkrein.bus import subjects
from checkrein.bus.approvals import (
    Acknowledge,
    Approval,
    Decide,
    Decided,
    Escalation,
    GateQuery,
)
from checkrein.bus.messages import (
    CommandRequest,
    CommandState,
    LiveChanged,
    LiveQuery,
    LiveRun,
    MessageError,
    decode,
    encode,
)
from checkrein.bus.types import Bus, Message, Unreachable

WAIT_S = 2.0
DECIDE_S = 5.0
CHANGES_WAIT_S = 0.25
"""A change that was not heard of is found after so long."""
PAGE = 1000
RUNS_MAX = 20_000
ANSWER_FULL_BYTES = 600_000
"""An answer this large may have been cut: ask for what follows."""

T = TypeVar("T")


class ControlAway(Exception):
    """The control role did not answer: nothing is known of what was asked."""


class Controls:
    """A client of the role `control`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def listen(self) -> None:
        """Begins to hear of changes; needed once before `settled`."""
        await self._bus.subscribe(subjects.LIVE_CHANGED, self._note_change)

    async def runs(self, wait_s: float = WAIT_S) -> list[LiveRun]:
        """The runs that control holds, by id, at most RUNS_MAX. Raises ControlAway."""
        found: list[LiveRun] = []
        after = ""
        while len(found) < RUNS_MAX:
            page, size = await self._ask(
                subjects.CONTROL_RUNS, LiveQuery(after=after, limit=PAGE), list[LiveRun], wait_s
            )
            found += page
            if not page or (len(page) < PAGE and size < ANSWER_FULL_BYTES):
                break
            after = page[-1].record.run_id
        return found

    async def run(self, run_id: str) -> LiveRun | None:
        """One run, if control holds it. Raises ControlAway."""
        query = LiveQuery(ids=[run_id])
        page, _ = await self._ask(subjects.CONTROL_RUNS, query, list[LiveRun], WAIT_S)
        return next((run for run in page if run.record.run_id == run_id), None)

    async def command(self, request: CommandRequest) -> CommandState:
        """Orders, and waits up to `request.wait_ms` for receipts. Raises ControlAway; the command
        may have been taken all the same, so ask again with the same `command_id`."""
        wait_s = request.wait_ms / 1000 + WAIT_S
        state, _ = await self._ask(subjects.CONTROL_COMMAND, request, CommandState, wait_s)
        return state

    async def commands(self, limit: int) -> list[CommandState]:
        """The latest commands, newest first. Raises ControlAway."""
        query = LiveQuery(limit=limit)
        return (await self._ask(subjects.CONTROL_COMMANDS, query, list[CommandState], WAIT_S))[0]

    async def one(self, command_id: str) -> CommandState | None:
        """One command with its receipts so far. Raises ControlAway."""
        query = LiveQuery(ids=[command_id])
        found, _ = await self._ask(subjects.CONTROL_COMMANDS, query, list[CommandState], WAIT_S)
        return next((state for state in found if state.command_id == command_id), None)

    async def approvals(self, query: GateQuery) -> list[Approval]:
        """Raises ControlAway."""
        return (await self._ask(subjects.CONTROL_APPROVALS, query, list[Approval], WAIT_S))[0]

    async def escalations(self, query: GateQuery) -> list[Escalation]:
        """Raises ControlAway."""
        return (await self._ask(subjects.CONTROL_ESCALATIONS, query, list[Escalation], WAIT_S))[0]

    async def decide(self, request: Decide) -> Decided:
        """Durable when it returns. Raises ControlAway: it may have been decided all the same."""
        return (await self._ask(subjects.CONTROL_DECIDE, request, Decided, DECIDE_S))[0]

    async def acknowledge(self, request: Acknowledge) -> Decided:
        """As `decide`."""
        return (await self._ask(subjects.CONTROL_ACKNOWLEDGE, request, Decided, DECIDE_S))[0]

    async def settled(self, command_id: str, wait_s: float) -> CommandState | None:
        """One command as soon as it is done or has changed, or as it is after `wait_s`. Raises
        ControlAway."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        changed = asyncio.Event()
        self._waiting.setdefault(command_id, set()).add(changed)
        try:
            before = state = await self.one(command_id)
            while state is not None and not state.done and state == before:
                left = deadline - loop.time()
                if left <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, CHANGES_WAIT_S)):
                        await changed.wait()
                changed.clear()
                state = await self.one(command_id)
            return state
        finally:
            waiting = self._waiting[command_id]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[command_id]

    async def _ask(
        self, subject: str, message: object, kind: type[T], wait_s: float
    ) -> tuple[T, int]:
        """The answer and its size in bytes. Raises ControlAway."""
        try:
            raw = await self._bus.request(subject, encode(message), wait_s)
            return decode(raw, kind), len(raw)
        except (Unreachable, MessageError) as error:
            raise ControlAway(f"the control role does not answer: {error}") from error

    async def _note_change(self, message: Message) -> None:
        try:
            changes = decode(message.data, LiveChanged)
        except MessageError:
            return
        for command_id in changes.commands:
            for changed in self._waiting.get(command_id, ()):
                changed.set()
