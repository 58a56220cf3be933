"""The seam to the history: what may be written and asked. ClickHouse (chDB in process by default),
or the in-memory twin, which passes the same contract tests.

All calls are synchronous and thread-safe; a role calls them from a thread of its own.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

QUERIES: dict[str, str] = {
    "run": "one run's summary: run_id",
    "runs": "latest runs first: limit, agent?, room?, task_id?, environment?, status?, since?, "
    "run_ids?",
    "events_of_run": "a run's events in order: run_id, limit, after? (the last row's `position`)",
    "events_of_task": "a task's events in order: task_id, limit, after?",
    "events": "events by filter: limit, types?, agent?, room?, run_id?, task_id?, since?, until?, "
    "after?",
    "find_run": "run ids that begin with: prefix, limit",
    "tool_errors_hourly": "calls, errors and latency per tool and hour: since?, until?, agent?",
    "agents": "agents seen, with runs, tokens and usd: since?",
    "content": "one long text by hash: hash",
    "counts": "rows, bytes on disk, runs",
    "marks": "highest number stored per recorder, agent and partition, with the lane's chain hash: "
    "recorder?, agent?",
    "coverage": "actions seen by the SDK, a gateway, both; denied: agent?, run_id?, since?, until?",
    "coverage_runs": "the same for each run, latest first: limit, agent?, run_id?, since?, until?",
    "coverage_paths": "what passed a gateway by protocol, with the guards that ran: agent?, "
    "run_id?, since?, until?",
}


class StoreError(Exception):
    """The store refused or failed; what was given to `write` is not durable. Says why."""


class StoreFull(StoreError):
    """No room on the disk."""


class RowRefused(StoreError):
    """One row of a `write` cannot be stored by anybody: nothing of that call was. The others may be
    written without it."""

    def __init__(self, agent: str, recorder: str, seq: int, why: str) -> None:
        super().__init__(f"event {seq} of {recorder!r} ({agent!r}): {why}")
        self.agent, self.recorder, self.seq, self.why = agent, recorder, seq, why


class UnknownQuery(StoreError):
    """No query of that name, or a parameter it does not know."""


class Row(msgspec.Struct, frozen=True):
    """One event on its way into the store: its lane's partition, and every field it has. `chain` is
    the lane's chain hash after this event, where it is known (after the last of an envelope)."""

    partition: int
    fields: dict[str, Any]
    chain: bytes = b""


class Store(Protocol):
    def write(self, rows: Sequence[Row]) -> int:
        """Makes rows durable; returns how many were new. An event is known by (agent, recorder,
        seq): writing it again changes nothing. All or nothing. Raises StoreError, StoreFull,
        RowRefused."""

    def query(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """A named query's rows. An event row is the event's JSON map with every field, plus
        `position`, an opaque cursor. Raises UnknownQuery, StoreError."""

    def rest(self) -> None:
        """For quiet times: does what would else wait for the next query, and gives memory back.
        Raises StoreError; nothing is lost by that."""

    def close(self) -> None:
        """Waits for calls under way."""
