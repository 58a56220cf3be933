"""What a lost connection does to runs: by each one's pact they go on, are held, or are halted."""

from collections.abc import Mapping

from checkrein.sdk.run import Run
from checkrein.world import World

PATIENCE_NS = 10_000_000_000
"""How long contact may be gone before it counts as lost."""


class Contact:
    """Called from the link's thread only."""

    def __init__(self, runs: Mapping[str, Run], world: World) -> None:
        self._runs = runs
        self._world = world
        self._gone_since_ns: int | None = None
        self._acted = False

    def lost(self) -> None:
        """There is no contact (any more)."""
        if self._gone_since_ns is None:
            self._gone_since_ns = self._world.monotonic_ns()
        self.look()

    def look(self) -> None:
        """To be called now and then while contact is gone."""
        if self._gone_since_ns is None:
            return
        if self._world.monotonic_ns() - self._gone_since_ns < PATIENCE_NS:
            return
        self._acted = True
        for run in list(self._runs.values()):
            match run.seat.pact.lost_contact:
                case "pause":
                    run.contact(lost=True)
                case "halt":
                    run.halt("contact with the server is lost", "pact:lost_contact")
                case "continue":
                    pass

    def back(self) -> None:
        self._gone_since_ns = None
        if self._acted:
            self._acted = False
            for run in list(self._runs.values()):
                run.contact(lost=False)
