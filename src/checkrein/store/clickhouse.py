"""The history in ClickHouse: chDB in this process (`chdb://PATH`), or any server
(`clickhouse://[USER:PASSWORD@]HOST[:PORT]`). One client and one SQL for both.

One process may open a chDB folder at a time; within it writing and reading go side by side. Writes
are one at a time. A write is one part of one table and therefore stands whole or not at all;
aggregates follow it in batches (`schema`), and what a crash left out of them is fed at the next
opening.
"""

# ruff: noqa: S608  # names in the SQL are our own constants, values are bound or numbers of ours

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from checkrein.store import answers, queries, rows, schema
from checkrein.store.parameters import check
from checkrein.store.seen import Seen
from checkrein.store.types import Row, StoreError, StoreFull
from checkrein.world import World

log = logging.getLogger(__name__)

DB = schema.DATABASE
READERS = 2
FEED_ROWS_MAX = 100_000
"""The aggregates are fed at the latest when so many rows wait; each feed is at most this (or one
batch), so that it is one part of each aggregate."""
CONTENTS_KNOWN_MAX = 50_000
DAY_NS = 86_400 * 10**9
FOREVER_DAY = 65_379  # the last day a ClickHouse Date can say is 65535

ENGINE_OPTIONS = {
    "mark_cache_size": 32 << 20, "primary_index_cache_size": 32 << 20,
    "index_mark_cache_size": 16 << 20, "compiled_expression_cache_size": 16 << 20,
    "query_condition_cache_size": 8 << 20, "background_pool_size": 2,
    "max_server_memory_usage": 2 << 30, "merges_mutations_memory_usage_soft_limit": 512 << 20,
}  # fmt: skip
"""chDB is made for analysis on the whole machine; here it is a guest."""

_WRITING = {"max_insert_threads": 1, "max_threads": 1, "max_insert_block_size": 1 << 20}
_READING = {"max_threads": 2, "max_memory_usage": 1 << 30, "max_execution_time": 30}

_FULL_CODES = (243,)
_FULL_WORDS = ("No space left on device", "NOT_ENOUGH_SPACE", "Disk quota exceeded")


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return getattr(error, "code", None) in _FULL_CODES or any(
        word in str(error) for word in _FULL_WORDS
    )


@contextlib.contextmanager
def _told(doing: str) -> Iterator[None]:
    """Engine errors become ours, with what was being done."""
    try:
        yield
    except (ClickHouseError, OSError, pa.ArrowException) as error:
        kind = StoreFull if _is_full(error) else StoreError
        raise kind(f"{doing}: {error}") from error


class ClickHouseStore:
    """See `types.Store` for what may be relied on."""

    def __init__(self, url: str, world: World) -> None:
        """Opens, creating or migrating what is not there. Raises StoreError: another process has
        the folder, the tables are of a newer version, no server answers."""
        self._world = world
        self._lock = threading.RLock()
        self._target = _Target(url)
        self._closed = False
        self._uncertain = False
        self._last_batch = self._fed = self._waiting_rows = 0
        self._contents: dict[str, int] = {}
        self._seen = Seen(self._marks_of, self._stored_of)
        self._clients: list[Client] = []
        self._readers: queue.SimpleQueue[Client] = queue.SimpleQueue()
        try:
            with _told(f"opening the store {self._target.shown}"):
                self._writer = self._connect(_WRITING)
                _migrate(self._writer, world)
                for _ in range(READERS):
                    self._readers.put(self._connect(_READING))
                self._recover()
        except BaseException:
            self.close()
            raise

    def _connect(self, settings: dict[str, int]) -> Client:
        client = self._target.connect(settings)
        self._clients.append(client)
        return client

    # --- writing ---------------------------------------------------------------------------------

    def write(self, rows_in: Sequence[Row]) -> int:
        with self._lock:
            if self._uncertain:
                with _told("finding out what an interrupted write left"):
                    self._recover()
            with _told("looking up what is stored"):
                new = self._seen.unseen(rows_in)
            if not new:
                return 0
            stored_at = max(self._last_batch + 1, self._world.now_ns())
            placed = self._seen.place(new)
            batch = rows.build(placed, stored_at)
            self._uncertain = True
            with _told(f"writing {len(new)} events"):
                self._write_contents(batch.contents, stored_at)
                self._writer.insert_arrow(f"{DB}.events", batch.events)
            self._uncertain = False
            self._last_batch = stored_at
            self._seen.stored(placed)
            self._waiting_rows += len(new)
            if self._waiting_rows >= FEED_ROWS_MAX:
                self._feed_if_possible()
            return len(new)

    def _write_contents(self, contents: dict[str, tuple[str, int]], stored_at: int) -> None:
        today = stored_at // DAY_NS
        missing = []
        for key, (text, days) in contents.items():
            # Rounded up, so that a text in constant use is written again once in 15 days only.
            until = FOREVER_DAY if days == 0 else -(-(today + days + 1) // 15) * 15
            if self._contents.get(key, 0) < until:
                missing.append((key, text, until))
        if not missing:
            return
        keys, texts, until_days = zip(*missing, strict=True)
        table = pa.table(
            {
                "hash": pa.array([bytes.fromhex(key) for key in keys], pa.binary(32)),
                "text": pa.array(texts, pa.string()),
                "keep_until": pa.array(until_days, pa.uint16()),
            }
        )
        self._writer.insert_arrow(f"{DB}.contents", table)
        if len(self._contents) + len(missing) > CONTENTS_KNOWN_MAX:
            self._contents.clear()
        self._contents.update((key, until) for key, _, until in missing)

    def feed(self) -> None:
        """Brings the aggregates up to the last write. Queries do this when they need it; a caller
        with nothing else to do may do it early. Raises StoreError; nothing is lost by that."""
        with self._lock:
            if self._uncertain:
                with _told("feeding what an interrupted write left"):
                    self._recover()
            if not self._waiting_rows:
                return
            self._uncertain = True
            with _told("feeding the aggregates"):
                columns = ", ".join(schema.FRESH_COLUMNS)
                self._writer.command(
                    f"INSERT INTO {DB}.fresh ({columns}) SELECT {columns} FROM {DB}.events "
                    f"WHERE stored_at > {self._fed} AND stored_at <= {self._last_batch}"
                )
            self._uncertain = False
            self._fed = self._last_batch
            self._waiting_rows = 0

    def _feed_if_possible(self) -> None:
        """What was written stands all the same, and is fed later."""
        try:
            self.feed()
        except StoreError as error:
            log.warning("aggregates are behind: %s", error)

    def _recover(self) -> None:
        """Finds what stands, and feeds to each aggregate the batches that it has not got."""
        self._contents = {}
        self._waiting_rows = 0
        self._seen = Seen(self._marks_of, self._stored_of)
        newest = self._youngest("events")
        for name, select in schema.ROLLUPS.items():
            fed = self._youngest(name)
            for low, high in self._ranges(fed):
                log.info("feeding %s with what was stored after %d", name, low)
                source = (
                    f"(SELECT {', '.join(schema.FRESH_COLUMNS)} FROM {DB}.events "
                    f"WHERE stored_at > {low} AND stored_at <= {high})"
                )
                self._writer.command(f"INSERT INTO {DB}.{name} {select.format(source=source)}")
            newest = max(newest, fed)
        self._last_batch = self._fed = newest
        self._uncertain = False

    def _youngest(self, table: str) -> int:
        return _number(self._writer, f"SELECT max(stored_at) FROM {DB}.{table}")

    def _ranges(self, fed: int) -> list[tuple[int, int]]:
        """Whole batches after `fed`, in ranges of about FEED_ROWS_MAX rows."""
        statement = queries.Statement(
            f"SELECT stored_at, count() FROM {DB}.events WHERE stored_at > {fed} "
            "GROUP BY stored_at ORDER BY stored_at",
            {},
        )
        found = _rows(self._writer, statement)
        ranges, low, count = [], fed, 0
        for index, (stored_at, batch_rows) in enumerate(found):
            count += batch_rows
            if count >= FEED_ROWS_MAX or index == len(found) - 1:
                ranges.append((low, int(stored_at)))
                low, count = int(stored_at), 0
        return ranges

    def _marks_of(self, recorders: Sequence[str]) -> list[tuple[Any, ...]]:
        self.feed()
        return _rows(self._writer, queries.marks_of(recorders))

    def _stored_of(self, agent: str, recorder: str, seqs: Sequence[int]) -> set[int]:
        found = _rows(self._writer, queries.stored_of(agent, recorder, seqs))
        return {seq for (seq,) in found}

    # --- reading ---------------------------------------------------------------------------------

    def query(self, name: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """As `Store.query`. When the aggregates cannot be fed (a full disk), answers from what they
        have."""
        given = check(name, parameters)
        if name in answers.FROM_AGGREGATES:
            self._feed_if_possible()
        if name == "counts":
            return self._counts()
        statement = answers.STATEMENTS[name](given)
        with self._reader() as client, _told(f"query {name}"):
            if name in answers.OF_EVENTS:
                return self._events(client, statement)
            return answers.SHAPES[name](given, _rows(client, statement))

    def _events(self, client: Client, statement: queries.Statement) -> list[dict[str, Any]]:
        result = client.query(statement.sql, parameters=statement.bindings)
        if not result.row_count:
            return []
        found = dict(zip(result.column_names, result.result_columns, strict=True))
        bodies = rows.bodies(found["body"])
        hashes = rows.referred(found["body"], bodies)
        texts = dict(_rows(client, queries.texts_of(sorted(hashes)))) if hashes else {}
        return rows.events_of(found, texts, bodies)

    def _counts(self) -> list[dict[str, Any]]:
        with self._reader() as client, _told("query counts"):
            tables = _rows(client, queries.COUNTS)
            runs = _number(client, f"SELECT uniqExact(run_id) FROM {DB}.runs")
        return answers.counts(tables, runs)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Client]:
        if self._closed:
            raise StoreError("the store is closed")
        client = self._readers.get()
        try:
            yield client
        finally:
            self._readers.put(client)

    # --- the rest --------------------------------------------------------------------------------

    def rest(self) -> None:
        """For quiet times: feeds the aggregates and gives memory that is not needed back."""
        self.feed()
        with self._lock, _told("giving memory back"):
            self._writer.command("SYSTEM JEMALLOC PURGE")
            pa.default_memory_pool().release_unused()
            _trim()

    def close(self) -> None:
        """Waits for a write under way. Everything that `write` returned for is on disk."""
        with self._lock:
            self._closed = True
            for client in self._clients:
                client.close()
            self._clients.clear()
            self._target.release()


class _Target:
    """Where the history is, and the lock on it when it is a folder."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._lock_file = -1
        if self._parts.scheme not in ("chdb", "clickhouse"):
            raise StoreError(f"{url!r} is no store: chdb://PATH or clickhouse://HOST[:PORT]")
        self.folder = Path(unquote(self._parts.netloc + self._parts.path))
        self.shown = str(self.folder) if self._parts.scheme == "chdb" else f"{self._parts.hostname}"

    def connect(self, settings: dict[str, int]) -> Client:
        if self._parts.scheme == "chdb":
            self._hold()
            return clickhouse_connect.get_client(
                interface="chdb", path=str(self.folder), settings=settings,
                chdb_options=ENGINE_OPTIONS,
            )  # fmt: skip
        return clickhouse_connect.get_client(
            host=self._parts.hostname or "127.0.0.1",
            port=self._parts.port or 8123,
            username=unquote(self._parts.username or "default"),
            password=unquote(self._parts.password or ""),
            settings=settings,
        )

    def _hold(self) -> None:
        if self._lock_file >= 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(f"{self.folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise StoreError(
                f"another process has the store {self.folder} open; stop it first"
            ) from error
        self._lock_file = file

    def release(self) -> None:
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


def _trim() -> None:
    """The C library keeps what Python gave back; on glibc it can be asked not to."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _rows(client: Client, statement: queries.Statement) -> list[tuple[Any, ...]]:
    found = client.query(statement.sql, parameters=statement.bindings).result_rows
    return [tuple(row) for row in found]


def _number(client: Client, sql: str) -> int:
    return int(_rows(client, queries.Statement(sql, {}))[0][0])


def _migrate(client: Client, world: World) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {DB}")
    client.command(schema.VERSIONS)
    version = _number(client, f"SELECT max(version) FROM {DB}.versions")
    if version > len(schema.MIGRATIONS):
        raise StoreError(
            f"the store has version {version}, this program knows {len(schema.MIGRATIONS)}: "
            "use the newer program"
        )
    for number, statements in enumerate(schema.MIGRATIONS[version:], version + 1):
        for statement in statements:
            client.command(statement)
        client.command(f"INSERT INTO {DB}.versions VALUES ({number}, {world.now_ns()})")
