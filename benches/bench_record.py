"""What recording costs the agent's thread, beside the bare work and beside OpenTelemetry."""

import gc
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.harness import Row
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from checkrein.events import codec
from checkrein.events.plain import plain
from checkrein.events.types import ToolReturned
from checkrein.sdk.place import Place
from checkrein.sdk.recorder import Recorder
from checkrein.world import REAL

QUESTION = "How long does one event of 1.5 kB keep the agent's thread?"
ROUNDS = 10
EVENTS = 2_000
PLACE = Place("production", "refunds", "support-bot", REAL.uuid7(), REAL.trace_id())
OWN: dict[str, Any] = {
    "call_id": "call_0123456789", "tool": "search_orders", "result": "x" * 1_170,
    "duration_ns": 1_234_567,
}  # fmt: skip
RESULT = {"rows": [{"id": n, "name": f"order {n}", "note": "y" * 70} for n in range(12)]}
Step = Callable[[], object]


class _Nowhere(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def run() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="checkrein-bench-"))
    try:
        return _run(folder)
    finally:
        shutil.rmtree(folder)


def _run(folder: Path) -> list[Row]:
    recorder = Recorder(folder, REAL, agent="support-bot", bytes_max=1 << 30)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere(), max_queue_size=65_536))
    tracer = provider.get_tracer("bench")

    result = OWN["result"]

    def record() -> None:
        recorder.record(
            ToolReturned, PLACE, 3, call_id="call_0123456789", tool="search_orders",
            result=result, duration_ns=1_234_567,
        )  # fmt: skip

    def record_nested() -> None:
        recorder.record(
            ToolReturned, PLACE, 3, call_id="call_0123456789", tool="search_orders",
            result=plain(RESULT), duration_ns=1_234_567,
        )  # fmt: skip

    def span() -> None:
        with tracer.start_as_current_span("execute_tool") as it:
            it.set_attribute("gen_ai.tool.name", "search_orders")
            it.set_attribute("gen_ai.tool.call.id", "call_0123456789")
            it.set_attribute("gen_ai.tool.call.result", OWN["result"])

    bare, close = _bare_append(folder / "bare")
    found = _side_by_side({
        "record": record, "nested": record_nested, "bare": bare, "span": span,
        "nothing": lambda: None,
    })  # fmt: skip
    stats = recorder.stats()
    if stats.lost or stats.errors:
        raise RuntimeError(f"the bench lost events: {stats}")
    provider.shutdown()
    recorder.close()
    close()
    return _rows(found)


def _rows(found: dict[str, list[int]]) -> list[Row]:
    def at(name: str, share: float) -> float:
        times = found[name]
        clock = found["nothing"][len(times) // 2]
        return (times[min(int(len(times) * share), len(times) - 1)] - clock) / 1000

    note = (
        "limit: build the struct, encode it, copy it into a mapped file; the clock's own taken off"
    )
    return [
        Row(name="record one event, p50", measured=at("record", 0.5), limit=at("bare", 0.5),
            target=2.0, unit="µs", note=note),
        Row(name="record one event, p99", measured=at("record", 0.99), limit=at("bare", 0.99),
            target=10.0, unit="µs"),
        Row(name="record one event, longest", measured=at("record", 1.0), limit=at("bare", 1.0),
            unit="µs", note="of 20,000; most of it is the scheduler's"),
        Row(name="the same with a nested result made plain, p50", measured=at("nested", 0.5),
            limit=at("bare", 0.5), unit="µs", note="12 rows of 3 values, checked one by one"),
        Row(name="record one event, p50, beside an OpenTelemetry span",
            measured=at("record", 0.5), limit=at("span", 0.5), unit="µs",
            note="limit: one span with three attributes, BatchSpanProcessor, exporter to nowhere"),
        Row(name="record one event, p99, beside an OpenTelemetry span",
            measured=at("record", 0.99), limit=at("span", 0.99), unit="µs"),
    ]  # fmt: skip


def _side_by_side(steps: dict[str, Step]) -> dict[str, list[int]]:
    """Each step's times, sorted; the steps take turns, so that all meet the same weather."""
    times: dict[str, list[int]] = {name: [] for name in steps}
    clock = time.perf_counter_ns
    for step in steps.values():
        for _ in range(200):
            step()
    gc.collect()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            into = times[name].append
            for _ in range(EVENTS):
                began = clock()
                step()
                into(clock() - began)
    return {name: sorted(took) for name, took in times.items()}


def _bare_append(path: Path) -> tuple[Step, Callable[[], None]]:
    """The least that recording to a file that survives us must do."""
    size = 64 * 1024 * 1024
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, size)
    mapped = mmap.mmap(file, size)
    os.close(file)
    at = 0
    seq = 0

    def step() -> None:
        nonlocal at, seq
        seq += 1
        data = codec.encode(ToolReturned(
            recorder="r", seq=seq, ts=time.time_ns(), environment=PLACE.environment,
            room=PLACE.room, agent=PLACE.agent, run_id=PLACE.run_id, task_id=PLACE.task_id,
            step=3, **OWN,
        ))  # fmt: skip
        end = at + len(data)
        mapped[at:end] = data
        at = end

    return step, mapped.close
