"""The seam between a client and whoever it is linked to. Every method returns at once and never
raises; the link works in a thread of its own."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from checkrein.sdk.run import Run


class Link(Protocol):
    @property
    def connected(self) -> bool:
        """True while orders can reach this process."""

    def start(self) -> None: ...

    def wait_settled(self, seconds: float) -> None:
        """Returns as soon as it is known whether there is somebody at the other end."""

    def pact_of(self, agent: str) -> str | None:
        """The pact (YAML) that the other end holds for an agent; None: it has none."""

    def began(self, run: "Run") -> None: ...

    def ended(self, run: "Run") -> None: ...

    def changed(self, run: "Run") -> None:
        """The run's state changed."""

    def settled(self, run: "Run") -> None:
        """The run is held, and its last call in flight has come back."""

    def close(self, seconds: float) -> None:
        """Says what is left to say, for at most `seconds`."""


class NoLink:
    """Nobody at the other end: everything stays local."""

    connected = False

    def start(self) -> None: ...
    def wait_settled(self, seconds: float) -> None: ...
    def pact_of(self, agent: str) -> str | None:
        return None

    def began(self, run: "Run") -> None: ...
    def ended(self, run: "Run") -> None: ...
    def changed(self, run: "Run") -> None: ...
    def settled(self, run: "Run") -> None: ...
    def close(self, seconds: float) -> None: ...
