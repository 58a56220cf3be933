"""A run that its guard calls a runaway: the server's rule halts it, and this process does when the
server has not in time."""

from checkrein.world import World

_BACKSTOP_NS = 2_000_000_000
"""How long after a runaway the server may take to halt the run before this process does."""


class Runaway:
    """Of one run. `told`: the server is to halt it; never taken back."""

    __slots__ = ("_since_ns", "_world", "reason", "told")

    def __init__(self, world: World) -> None:
        self._world = world
        self._since_ns = 0
        self.told = False
        self.reason = ""

    def tell(self, reason: str) -> None:
        """The last reason is kept, and the first time."""
        self.reason = reason
        if not self.told:
            self._since_ns = self._world.monotonic_ns()
            self.told = True

    @property
    def overdue(self) -> bool:
        return self._world.monotonic_ns() - self._since_ns >= _BACKSTOP_NS
