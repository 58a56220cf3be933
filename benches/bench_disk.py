"""Disk for each event, beside the payload compressed by itself."""

import hashlib
import tempfile
from typing import Any

import msgspec
import pyarrow as pa
from benches.harness import Row

from checkrein.store import Row as Event
from checkrein.store.clickhouse import ClickHouseStore
from checkrein.world import REAL

QUESTION = "How much disk does an event take, beside what its payload takes compressed by itself?"

EVENTS = 60_000
BATCH = 3_000
BLOCK_BYTES = 64 * 1024
AGENTS = 30


def payload(number: int) -> dict[str, Any]:
    """Half a kilobyte that compresses badly, in the two types that carry one."""
    kind = number % 6
    if kind == 1:
        return {"arguments": {"question": hashlib.sha512(b"%d" % number).hexdigest() * 2}}
    if kind == 3:
        digests = [hashlib.sha256(b"%d.%d" % (number, n)).hexdigest() for n in range(14)]
        return {"result": {"hits": digests}}
    return {}


TYPES = (
    "tool.selected", "tool.arguments", "tool.invoked", "tool.returned", "tool.parsed",
    "tool.reentered",
)  # fmt: skip


def event(number: int) -> dict[str, Any]:
    """Tool calls of many agents, interleaved as they come over the bus, with random ids."""
    agent, seq = number // 6 % AGENTS, number // (6 * AGENTS) * 6 + number % 6 + 1
    kind = number % 6
    run = f"{agent}.{seq // 1000}"
    jitter = int.from_bytes(hashlib.md5(b"%d" % number).digest()[:3], "big")  # no secret
    fields: dict[str, Any] = {
        "recorder": hashlib.sha256(b"recorder %d" % agent).hexdigest()[:32], "seq": seq,
        "ts": 1_760_000_000 * 10**9 + number * 20_000_000 + jitter, "environment": "production",
        "room": f"room-{agent % 4}", "agent": f"agent-{agent}",
        "run_id": hashlib.sha256(run.encode()).hexdigest()[:36],
        "task_id": hashlib.sha256(b"task" + run.encode()).hexdigest()[:32],
        "step": seq // 12 + 1, "type": TYPES[kind],
        "call_id": hashlib.sha256(b"call %d" % (number // 6)).hexdigest()[:32],
        "tool": f"tool_{number // 6 % 7}",
    }  # fmt: skip
    if kind == 3:
        fields["duration_ns"] = 1_000_000 + jitter * 50
    return fields | payload(number)


def compressed_alone(payloads: list[bytes]) -> int:
    """zstd level 3 over blocks of 64 KiB: what the payload takes with nothing around it."""
    codec = pa.Codec("zstd", compression_level=3)
    joined = b"".join(payloads)
    blocks = range(0, len(joined), BLOCK_BYTES)
    return sum(len(codec.compress(joined[at : at + BLOCK_BYTES])) for at in blocks)


def run() -> list[Row]:
    events = [event(number) for number in range(EVENTS)]
    alone = compressed_alone([msgspec.json.encode(payload(n)) for n in range(EVENTS) if payload(n)])
    raw = sum(len(msgspec.msgpack.encode(fields)) for fields in events)
    with tempfile.TemporaryDirectory() as folder:
        store = ClickHouseStore(f"chdb://{folder}/store", REAL)
        try:
            for first in range(0, EVENTS, BATCH):
                store.write([Event(1, fields) for fields in events[first : first + BATCH]])
            store.feed()
            for (table,) in store._writer.query(
                "SELECT name FROM system.tables WHERE database = 'checkrein' "
                "AND engine LIKE '%MergeTree'"
            ).result_rows:
                store._writer.command(f"OPTIMIZE TABLE checkrein.{table} FINAL")
            (counts,) = store.query("counts", {})
        finally:
            store.close()
    return [
        Row(
            name="disk beyond the payload's own", measured=(counts["bytes"] - alone) / EVENTS,
            limit=0.0, target=60.0, unit="B/event",
            note=f"{counts['bytes'] / EVENTS:.0f} B on disk, payload alone {alone / EVENTS:.0f} B, "
            f"{raw / EVENTS:.0f} B as sent; {EVENTS:,} events after merges",
        )
    ]  # fmt: skip
