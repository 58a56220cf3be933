"""Questions of the agents' processes on their way to control and back.

Keeps nothing: a process asks again until it is answered. One question is on its way once at a time.
"""

import logging
from collections.abc import Callable

import msgspec

from checkrein.bus import subjects
from checkrein.bus.approvals import Ask, Asked, Raise, checked
from checkrein.bus.messages import MessageError, decode, encode
from checkrein.bus.orders import OrderRefused
from checkrein.bus.types import Bus, BusError

_log = logging.getLogger(__name__)

ANSWER_S = 3.0
WAITING_MAX = 1_000

Tell = Callable[[Asked], None]


class Seeking:
    """What is to be asked, by claim, and whom the answer goes to."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Ask | Raise, Tell]] = {}

    def add(self, word: Ask | Raise, tell: Tell) -> bool:
        """False: too many wait; it will be asked again."""
        claim = claim_of(word)
        if claim not in self._waiting and len(self._waiting) >= WAITING_MAX:
            return False
        self._waiting[claim] = (word, tell)
        return True

    def take(self) -> list[tuple[Ask | Raise, Tell]]:
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting


async def seek(bus: Bus, session: str, key: bytes, word: Ask | Raise, tell: Tell) -> None:
    """Asks control once. What fails is said by nobody: it is asked again."""
    subject = subjects.ask(session)
    try:
        if isinstance(word, Ask) and word.left:
            await bus.publish(subject, encode(word))
            return
        data = await bus.request(subject, encode(word), ANSWER_S)
        digest = word.digest if isinstance(word, Ask) else ""
        tell(checked(decode(data, Asked), key, session, digest))
    except BusError as error:
        _log.info("nobody answers yet: %s", error)
    except (MessageError, OrderRefused, msgspec.MsgspecError) as error:
        _log.warning("an answer about an approval was refused: %s", error)


def claim_of(word: Ask | Raise) -> str:
    return word.claim if isinstance(word, Ask) else word.escalation_id


def nobody(word: Ask | Raise) -> Asked:
    why = "nobody can be asked: the supervisor has no server"
    return Asked(claim=claim_of(word), status="nobody", reason=why)
