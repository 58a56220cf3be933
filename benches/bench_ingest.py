"""From the bus into the history: durable and queryable, beside the bare engine in the same run."""

import asyncio
import hashlib
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import clickhouse_connect
import uvloop
from benches.bench_disk import event
from benches.harness import Row

from checkrein.bus import nats, subjects
from checkrein.bus.credentials import Keys
from checkrein.bus.embedded import EmbeddedServer
from checkrein.bus.messages import Answer, Query, decode, encode
from checkrein.events.envelope import (
    CHAIN_START,
    Envelope,
    advance,
    as_raw,
    lane_message_id,
    pack,
)
from checkrein.server import archive
from checkrein.server.context import RoleContext
from checkrein.store import Row as Event
from checkrein.store import rows
from checkrein.store.clickhouse import ClickHouseStore
from checkrein.world import REAL

QUESTION = "How many events a second become durable and queryable, and what can the bare engine do?"

AGENTS = 20
ENVELOPES = 75
EVENTS_EACH = 100
BATCH = 10_000


def run() -> list[Row]:
    bare, written = _without_bus()
    whole, microseconds = uvloop.run(_whole_path())
    return [
        Row(
            name="store.write, from events to durable", measured=written, limit=bare,
            target=15_000.0, unit="events/s", note="limit: bare Arrow insert of the same columns",
        ),
        Row(
            name="bus to archive, durable and queryable", measured=whole, limit=bare,
            target=15_000.0, unit="events/s",
            note=f"load generator on the same cores; {microseconds:.0f} µs of CPU an event in the "
            "archive; limit: bare Arrow insert",
        ),
    ]  # fmt: skip


def _without_bus() -> tuple[float, float]:
    """Rows a second of a bare Arrow insert into a synced table, and of `Store.write`."""
    events = [event(number) for number in range(4 * BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        store = ClickHouseStore(f"chdb://{folder}/store", REAL)
        client = clickhouse_connect.get_client(interface="chdb", path=f"{folder}/store")
        client.command("CREATE TABLE checkrein.bare AS checkrein.events")
        try:
            batches = [events[at : at + BATCH] for at in range(0, len(events), BATCH)]
            begun = time.perf_counter()
            for batch in batches:
                store.write([Event(1, fields) for fields in batch])
            written = len(events) / (time.perf_counter() - begun)
            tables = [
                rows.build([rows.Placed(Event(1, one), one["ts"]) for one in batch], 1).events
                for batch in batches
            ]
            begun = time.perf_counter()
            for table in tables:
                client.insert_arrow("checkrein.bare", table)
            bare = len(events) / (time.perf_counter() - begun)
        finally:
            client.close()
            store.close()
    return bare, written


async def _whole_path() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = Keys.load_or_create(folder / "keys")
        server = EmbeddedServer("events", folder / "bus", _free_port(), keys)
        process = subprocess.Popen(  # noqa: ASYNC220 # returns at once
            server.command(), stderr=subprocess.DEVNULL
        )
        try:
            return await _through(folder, server, keys)
        finally:
            process.terminate()
            process.wait()


async def _through(folder: Path, server: EmbeddedServer, keys: Keys) -> tuple[float, float]:
    bus = await _connect(server.url, keys)
    stop, ready = asyncio.Event(), asyncio.Event()
    context = RoleContext(
        world=REAL, role="archive", data=folder, bus=bus, control_bus=bus, stop=stop,
        ready=ready.set, store_url=f"chdb://{folder}/store",
    )  # fmt: skip
    total = AGENTS * ENVELOPES * EVENTS_EACH
    async with asyncio.TaskGroup() as group:
        group.create_task(archive.run(context))
        await ready.wait()
        load = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benches.bench_ingest", server.url, str(folder / "keys"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert load.stdout is not None
        assert load.stdin is not None
        await load.stdout.readline()
        begun, cpu = time.perf_counter(), time.process_time()
        load.stdin.write(b"go\n")
        while await _stored(bus) < total:  # noqa: ASYNC110 # what is measured is the asking
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - begun
        spent = time.process_time() - cpu
        await load.communicate()
        stop.set()
    await bus.close()
    return total / seconds, spent / total * 1e6


async def _stored(bus: nats.NatsBus) -> int:
    raw = await bus.request(subjects.history("counts"), encode(Query(name="counts")), 30)
    return int(decode(raw, Answer).rows[0]["events"])


async def _connect(url: str, keys: Keys) -> nats.NatsBus:
    for _ in range(100):
        with suppress(Exception):
            return await nats.connect([url], keys.role("bench"), name="bench")
        await asyncio.sleep(0.05)
    raise RuntimeError(f"no bus at {url}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def envelopes(agent: int) -> list[tuple[str, bytes, str]]:
    """The messages of one agent's shipper: subject, data, message id."""
    name, recorder = f"agent-{agent}", hashlib.sha256(b"rec %d" % agent).hexdigest()[:32]
    chain, messages = CHAIN_START, []
    for index in range(ENVELOPES):
        seqs = list(range(index * EVENTS_EACH + 1, (index + 1) * EVENTS_EACH + 1))
        raws = []
        for seq in seqs:
            own: dict[str, Any] = {"agent": name, "recorder": recorder, "seq": seq}
            raws.append(as_raw(event((agent * 100_000 + seq) * 6 % 599_999 + seq % 6) | own))
            chain = advance(chain, raws[-1])
        envelope = Envelope(recorder, name, agent % 16, seqs[0] - 1, chain, seqs, raws)
        subject = subjects.events(name, agent % 16)
        messages.append((subject, pack(envelope), lane_message_id(envelope)))
    return messages


async def _load(url: str, keys: str) -> None:
    """The load generator, a process of its own."""
    bus = await _connect(url, Keys.load_or_create(Path(keys)))
    lanes = [envelopes(agent) for agent in range(AGENTS)]
    ordered = [message for group in zip(*lanes, strict=True) for message in group]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    at_once = asyncio.Semaphore(16)

    async def send(subject: str, data: bytes, message_id: str) -> None:
        async with at_once:
            await bus.append(subject, data, message_id, timeout_s=30)

    async with asyncio.TaskGroup() as group:
        for message in ordered:
            group.create_task(send(*message))
    await bus.close()


if __name__ == "__main__":
    uvloop.run(_load(sys.argv[1], sys.argv[2]))
