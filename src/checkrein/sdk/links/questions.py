"""The questions of a process that wait for somebody: which is asked again, and when."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from checkrein.sdk import quiet
from checkrein.sdk.asking import Question
from checkrein.world import World

if TYPE_CHECKING:
    from checkrein.bus.approvals import Ask, Raise
    from checkrein.bus.types import Bus

AGAIN_NS = 2_000_000_000
"""An unanswered question is asked again so often, for whatever was missed meanwhile."""
EARLY_NS = 300_000_000
"""One about a run that control does not know yet is asked again so soon."""
WAITING_MAX = 10_000
ASKED_AT_ONCE_MAX = 100
ANSWER_S = 3.0


class Questions:
    """Safe from any thread."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._due: dict[str, tuple[Question, int]] = {}
        self._left: list[Question] = []

    def add(self, question: Question) -> bool:
        """False: there are too many already."""
        with self._lock:
            if len(self._due) >= WAITING_MAX:
                return False
            self._due[question.claim] = (question, 0)
            return True

    def drop(self, question: Question) -> None:
        """Nobody waits for it any more; that is said, if it was asked and not answered."""
        with self._lock:
            if self._due.pop(question.claim, None) is not None and question.answer is None:
                self._left.append(question)
                del self._left[:-WAITING_MAX]

    def nudge(self, approval_id: str = "") -> None:
        """There is news of one, or (without an id) perhaps of all: they are due."""
        with self._lock:
            for claim, (question, _) in self._due.items():
                if approval_id in ("", question.approval_id):
                    self._due[claim] = (question, 0)

    def heard(self, question: Question, soon: bool) -> None:
        """It was asked just now, and is asked again after a while unless it is done."""
        pause_ns = EARLY_NS if soon else AGAIN_NS
        with self._lock:
            if question.claim in self._due:
                if question.done:
                    del self._due[question.claim]
                else:
                    self._due[question.claim] = (question, self._world.monotonic_ns() + pause_ns)

    def take(self) -> tuple[list[Question], list[Question]]:
        """Those that are due, and those that nobody waits for any more. What was taken comes again
        after a while, whether or not it is answered."""
        now_ns = self._world.monotonic_ns()
        with self._lock:
            due: list[Question] = []
            for claim, (question, at_ns) in list(self._due.items()):
                if question.done:
                    del self._due[claim]
                elif at_ns <= now_ns and len(due) < ASKED_AT_ONCE_MAX:
                    due.append(question)
                    self._due[claim] = (question, now_ns + AGAIN_NS)
            left, self._left = self._left, []
            return due, left

    def unheard(self) -> list[Question]:
        with self._lock:
            return [one for one, _ in self._due.values() if not one.waits and not one.done]

    def __len__(self) -> int:
        return len(self._due)

    def wait_s(self) -> float:
        """How long nothing is due."""
        with self._lock:
            if self._left:
                return 0.0
            if not self._due:
                return 3600.0
            first_ns = min(at_ns for _, at_ns in self._due.values())
        return max(0.0, (first_ns - self._world.monotonic_ns()) / 1e9)


async def ask_all(
    questions: Questions, woken: asyncio.Event, control: "Bus", session: str, key: bytes,
    connected: Callable[[], bool],
) -> None:  # fmt: skip
    """Asks what is due, for as long as the session lasts."""
    while True:
        woken.clear()
        due, left = questions.take() if connected() else ([], [])
        for question in left:
            await _say_left(control, session, question)
        async with asyncio.TaskGroup() as group:
            for question in due:
                group.create_task(_ask(questions, control, session, key, question))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, questions.wait_s()) if connected() else 1.0):
                await woken.wait()


async def say_rest(questions: Questions, control: "Bus", session: str, key: bytes) -> None:
    """What nobody waits for and nobody has heard yet is said once more, before the process ends."""
    for question in questions.unheard():
        await _ask(questions, control, session, key, question)


async def _ask(
    questions: Questions, control: "Bus", session: str, key: bytes, question: Question
) -> None:
    from checkrein.bus import subjects
    from checkrein.bus.approvals import Asked, checked
    from checkrein.bus.messages import MessageError, decode, encode
    from checkrein.bus.orders import OrderRefused
    from checkrein.bus.types import BusError

    soon = False
    try:
        message = encode(question.message())
        data = await control.request(subjects.ask(session), message, ANSWER_S)
        answer = checked(decode(data, Asked), key, session, question.digest)
        soon = answer.status == "unknown"
        question.told(answer)
    except BusError as error:
        quiet.LOG.info("checkrein: nobody answers yet: %s", error)
    except (MessageError, OrderRefused) as error:
        quiet.warn_once("answer", "checkrein: an answer about an approval was refused: %s", error)
    except Exception as error:
        quiet.fault("asking for approval", error)
    questions.heard(question, soon)


async def _say_left(control: "Bus", session: str, question: Question) -> None:
    from checkrein.bus import subjects
    from checkrein.bus.messages import encode
    from checkrein.bus.types import BusError

    message: Ask | Raise = question.message(left=True)
    if getattr(message, "left", False):
        with suppress(BusError):
            await control.publish(subjects.ask(session), encode(message))
