"""The way to one tool server, whatever it goes by."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from checkrein.gateway.mcp.rpc import Message
from checkrein.gateway.types import Refusal

Also = Callable[[Message], Awaitable[None]]
"""Takes what the server says besides the answer: notifications, and requests of its own."""


class SessionGone(Refusal):
    """The server has forgotten the session: the client must begin a new one."""

    def __init__(self, name: str) -> None:
        super().__init__(
            404, "no_session", f"the server {name} does not know this session any more"
        )


class Link(Protocol):
    """One session with one server (or, where requests stand for themselves, all of them)."""

    async def request(self, message: Message, also: Also, schema: Any = None) -> Message:
        """Its answer, with the request's own id. Cancelled, the server is told. `schema`: the input
        schema of the tool that is called. Raises Refusal when there is no good answer in time."""

    async def send(self, message: Message) -> None:
        """A notification, or the answer to a request of the server's. Raises Refusal."""

    async def listen(self, also: Also, opened: Callable[[], Awaitable[None]]) -> None:
        """What the server says outside of any request, until it ends; `opened` is told once it
        will. Raises Refusal when this server has no such stream."""

    async def close(self) -> None:
        """Ends the session. Never raises."""


def failed(name: str, why: str) -> Refusal:
    return Refusal(
        502, "upstream_failed", f"the tool server {name} gave no good answer: {why}",
        advice="RETRYABLE", by="the gateway",
    )  # fmt: skip


def too_late(name: str, seconds: float) -> Refusal:
    return Refusal(
        504, "upstream_timeout", f"the tool server {name} was silent for {seconds:g} s",
        advice="RETRYABLE", by="the gateway",
    )  # fmt: skip
