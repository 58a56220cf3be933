"""What takes secrets and personal data out of what passes, as the protocols see it: the seam.

One screen serves one call. What goes to the model passes `request`; what comes back passes
`value` when it is there as a whole, or a `channel` when it comes in pieces. Text of a model may
name what was taken out by a token: then that is turned back there.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from checkrein.gateway.visit import Visit


class Channel(Protocol):
    """One text that comes in pieces. What `text` and `finish` give, put together, is what `value`
    gives for the whole, however it was cut."""

    def text(self, piece: str) -> str:
        """What can be passed on by now: "" while all of it is held back."""

    def finish(self) -> str:
        """The rest: the text is whole. Called once."""


class Screen(Protocol):
    """`active` False: everything passes as it is, and none of the rest is called."""

    active: bool

    @property
    def counts(self) -> dict[str, int]:
        """What was taken out, by kind. Never what it was."""

    def request(self, body: Any) -> Any:
        """A request's body as the model may see it; it is not changed itself. Raises Refusal when
        it cannot be looked through."""

    def value(self, value: Any) -> Any:
        """A text, or a JSON value with texts, of an answer: as the agent may see it."""

    def arguments(self, value: Any) -> Any:
        """A proposed tool call's arguments, as JSON or as a value: with what the tokens in them
        stand for. They are judged after this."""

    def result(self, value: Any) -> Any:
        """What a tool gave back to the agent, without secrets."""

    def channel(self) -> Channel:
        """For one text of an answer that comes in pieces."""


class NoScreen:
    """Everything passes."""

    active = False

    @property
    def counts(self) -> dict[str, int]:
        return {}

    def request(self, body: Any) -> Any:
        return body

    def value(self, value: Any) -> Any:
        return value

    def arguments(self, value: Any) -> Any:
        return value

    def result(self, value: Any) -> Any:
        return value

    def channel(self) -> Channel:
        return _Open()


class _Open:
    def text(self, piece: str) -> str:
        return piece

    def finish(self) -> str:
        return ""


NO_SCREEN = NoScreen()
ScreenFor = Callable[["Visit"], Screen]
"""The screen of one call, by the pact of its run."""


def no_screen(visit: "Visit") -> Screen:
    return NO_SCREEN


def screened(value: Any, screen: Screen) -> Any:
    """A part of an answer as the agent may see it."""
    return screen.value(value)
