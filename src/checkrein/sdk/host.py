"""The process that a run is in, as the run sees it."""

from typing import TYPE_CHECKING, Any, Protocol

from checkrein.sdk.asking import Question
from checkrein.sdk.purse import Purses
from checkrein.sdk.types import Recording, RunInfo
from checkrein.world import World

if TYPE_CHECKING:
    from checkrein.sdk.run import Run


class Host(Protocol):
    """What a run asks of the process that it is in, and tells it. Nothing here raises an
    Exception."""

    world: World
    recorder: Recording
    purses: Purses

    @property
    def connected(self) -> bool:
        """True while orders can reach this process."""

    def place(self, info: RunInfo) -> Any:
        """Where the run's events belong, as the recorder takes it."""

    def next_call_id(self) -> str: ...
    def price(self, provider: str, model: str, usage: tuple[int, int, int, int]) -> float | None:
        """US dollars, or None when no price is known."""

    def run_began(self, run: "Run") -> None: ...
    def run_ended(self, run: "Run") -> None: ...
    def changed(self, run: "Run") -> None:
        """The run's state changed."""

    def settled(self, run: "Run") -> None:
        """The run is held, and its last call in flight has come back."""

    def ask(self, question: Question) -> None:
        """Has somebody asked, until it is answered or `unask`ed."""

    def unask(self, question: Question) -> None: ...

    def halt_children(self, parent: "Run", reason: str) -> None:
        """Halts what was begun inside a halted run."""
