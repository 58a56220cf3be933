"""The seam between a process and whoever commands it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from checkrein.bus.pacts import Holding, PactSet
from checkrein.sdk.asking import Question
from checkrein.sdk.config import Config
from checkrein.sdk.run import Run
from checkrein.sdk.types import Recording
from checkrein.world import World

if TYPE_CHECKING:
    from checkrein.bus.approvals import Asked


class Process(Protocol):
    """The process that a link speaks for. Safe from the link's thread."""

    world: World
    recorder: Recording
    config: Config
    """What holds now: the other end may change it (`lives_in`)."""

    @property
    def runs(self) -> Mapping[str, Run]:
        """The live runs by id, as they come and go."""

    def lives_in(self, room: str, environment: str) -> None:
        """What a supervisor says of this process."""

    def recalled(self, lines: Sequence[str]) -> None:
        """Somebody waits for what these lines of shared budgets hold."""

    def adopt(self, pact_set: PactSet) -> str:
        """Puts what the server says in force for one agent, runs under way included; returns why
        not. An older set changes nothing."""

    def holdings(self) -> list[Holding]:
        """Which pact each agent of this process lives by."""


class Link(Protocol):
    """Works in a thread of its own. But for `wait_settled` and `close`, every method returns at
    once; none raises an Exception."""

    @property
    def connected(self) -> bool:
        """True while orders can reach this process."""

    def start(self) -> None: ...

    def wait_settled(self, seconds: float) -> None:
        """Returns as soon as it is known whether there is somebody at the other end."""

    def pact_of(self, agent: str) -> str | None:
        """The pact (YAML) that the other end holds for an agent; None: it has none."""

    def began(self, run: Run) -> None: ...

    def ended(self, run: Run) -> None: ...

    def changed(self, run: Run) -> None:
        """The run's state changed."""

    def settled(self, run: Run) -> None:
        """The run is held, and its last call in flight has come back."""

    def ask(self, question: Question) -> None:
        """Has somebody asked, again and again, until the question is `done`; tells it what is
        heard. Tells it at once when there is nobody."""

    def unask(self, question: Question) -> None:
        """Nobody waits for it any more."""

    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool:
        """Asks the ledger (`bus.leases.LeaseRequest`). `answered` gets its answer, or nothing when
        none came; from the link's thread, and not at all if the link ends meanwhile. False: nobody
        can be asked."""

    def close(self, seconds: float) -> None:
        """Says what is left to say, for at most `seconds`."""


class NoLink:
    """Nobody at the other end: everything stays local."""

    connected = False

    def start(self) -> None: ...
    def wait_settled(self, seconds: float) -> None: ...
    def pact_of(self, agent: str) -> str | None:
        return None

    def began(self, run: Run) -> None: ...
    def ended(self, run: Run) -> None: ...
    def changed(self, run: Run) -> None: ...
    def settled(self, run: Run) -> None: ...
    def ask(self, question: Question) -> None:
        question.told(nobody(question))

    def unask(self, question: Question) -> None: ...
    def lease(self, request: bytes, answered: Callable[[bytes], None]) -> bool:
        return False

    def close(self, seconds: float) -> None: ...


def nobody(question: Question, why: str = "") -> "Asked":
    """The answer when there is nobody to ask."""
    from checkrein.bus.approvals import Asked

    return Asked(claim=question.claim, status="nobody", reason=why)
