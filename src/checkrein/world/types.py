"""What a world answers."""

from typing import Protocol


class World(Protocol):
    """Clock, chance and ids. Implementations are safe to call from any thread."""

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since 1970. May step; order nothing by it."""

    def monotonic_ns(self) -> int:
        """A clock that never steps back, nanoseconds from an arbitrary start. For durations."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def random_bytes(self, count: int) -> bytes:
        """`count` bytes, unpredictable in the real world, seeded in a simulated one."""

    def uuid7(self) -> str:
        """A new UUIDv7 (RFC 9562) as 36 characters: ordered by time, for runs and records."""

    def trace_id(self) -> str:
        """A new W3C trace id, 32 lower-case hex digits, never all zero: the id of a task."""

    def nonce(self) -> str:
        """16 fresh random bytes as 32 hex digits."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass on this world's clock."""
