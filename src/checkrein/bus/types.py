"""The seam to the bus: what the rest of the house may ask of NATS, or of its in-memory twin.

There are two buses in a running system: one for events and one, a server of its own, for control.
Both are this same type. Subjects are dot-separated tokens; `*` stands for one token, `>` for the
rest. Names that come from outside go through `subjects.token` first.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec


class BusError(Exception):
    """Root of what a bus may raise."""


class Unreachable(BusError):
    """No server answered within the bound. Nothing is known of what was asked."""


class Refused(BusError):
    """The server refused: no permission, or a limit. Says which subject."""


class WrongRevision(BusError):
    """A compare-and-set lost: the entry has another revision."""


class Message(msgspec.Struct, frozen=True):
    """One message. `position` is its number in the stream (0 for plain messages); `token` is the
    implementation's own, for acknowledging."""

    subject: str
    data: bytes
    position: int = 0
    reply: str = ""
    deliveries: int = 1
    token: object = None


class Entry(msgspec.Struct, frozen=True):
    """One value of a bucket. `value` None: deleted."""

    key: str
    value: bytes | None
    revision: int


class StreamSpec(msgspec.Struct, frozen=True):
    """A stream as it must be; checked by reading it back after creation."""

    name: str
    subjects: tuple[str, ...]
    bytes_max: int = -1
    age_max_s: float = 0
    evidence: bool = False
    """Neither deleting nor purging of messages is possible, and a full stream refuses new ones."""
    dedupe_window_s: float = 3600


class Subscription(Protocol):
    async def close(self) -> None: ...


class Consumer(Protocol):
    """A durable reader of a stream: what is not acknowledged comes again."""

    async def fetch(self, count_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `count_max` messages, as soon as there is one; empty after `wait_s`.
        Raises Unreachable."""

    async def ack(self, messages: Sequence[Message]) -> None:
        """These are done with. A lost acknowledgement means they come again."""

    async def hold(self, messages: Sequence[Message]) -> None:
        """Still at work on these: they do not come again for another `ack_wait_s` from now. So with
        what was fetched ahead and not given out yet."""

    async def later(self, messages: Sequence[Message], delay_s: float) -> None:
        """Not now: deliver these again after `delay_s`."""

    async def pending(self) -> int:
        """How many messages of the stream this consumer has not been given yet."""

    async def close(self) -> None: ...


class Bucket(Protocol):
    """Small consistent state: keys and values with compare-and-set; durable when a call returns."""

    async def get(self, key: str) -> Entry | None: ...

    async def put(self, key: str, value: bytes) -> int:
        """Writes whatever stands there; returns the revision."""

    async def create(self, key: str, value: bytes) -> int:
        """Writes unless the key stands already: WrongRevision."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Writes if the entry still has `revision`: else WrongRevision."""

    async def delete(self, key: str) -> None: ...

    async def keys(self, prefix: str = "") -> list[str]: ...

    async def entries(self, prefix: str = "") -> list[Entry]:
        """All live entries whose key begins with `prefix`."""

    def watch(self, prefix: str = "") -> AsyncIterator[Entry]:
        """All live entries now, then one Entry with key "" (all told), then every change."""


Handler = Callable[[Message], Awaitable[None]]


class Bus(Protocol):
    """One connection to one bus. Reconnects by itself for as long as it is open."""

    @property
    def connected(self) -> bool: ...

    def on_connection(self, call: Callable[[bool], None]) -> None:
        """`call(True)` on every (re)connect, `call(False)` on every loss, in the bus's loop."""

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """A plain message: fast, at most once, to whoever listens now."""

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Calls `handler` for each message, in order, one at a time. With `queue`, one of the group
        gets it. What the handler raises is logged with the subject; the subscription goes on. It is
        in force when the call returns (or, while disconnected, from the reconnect on)."""

    async def request(self, subject: str, data: bytes, timeout_s: float = 2.0) -> bytes:
        """Asks and waits for one answer. Raises Unreachable when none comes in time."""

    async def respond(self, message: Message, data: bytes) -> None:
        """Answers a request."""

    async def append(
        self, subject: str, data: bytes, message_id: str = "", timeout_s: float = 5.0
    ) -> int:
        """Puts a message into the stream that holds the subject; returns its position once it is
        durable. The same `message_id` within the stream's window is stored once. Raises Unreachable
        (it may be stored all the same: send again with the same id) or Refused."""

    async def stream(self, spec: StreamSpec) -> None:
        """Makes the stream, or brings it to this form, and checks by reading back."""

    async def consumer(
        self, stream: str, name: str, subjects: Sequence[str] = (), ack_wait_s: float = 30.0
    ) -> Consumer:
        """The durable consumer `name` (from the stream's beginning when it is new)."""

    def read(
        self, stream: str, subjects: Sequence[str] = (), after: int | None = None
    ) -> AsyncIterator[Message]:
        """The stream in order without acknowledging: from position `after` + 1, or from now when
        None. Ends never; survives reconnects without a gap or a repeat."""

    async def last_position(self, stream: str) -> int: ...

    async def bucket(self, name: str, history: int = 1) -> Bucket:
        """The bucket, made if it is not there."""

    async def last_value(self, bucket: str, key: str) -> Entry | None:
        """One entry read directly, with no more rights than reading that key (for agents)."""

    async def close(self) -> None:
        """Sends what is pending, then closes."""
