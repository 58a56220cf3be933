"""What one whole tool call costs the agent's thread, beside an OpenTelemetry span."""

import gc
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

import checkrein
from checkrein.sdk import config as configs
from checkrein.sdk import process
from checkrein.sdk.begin import client_of
from checkrein.sdk.client import Client

QUESTION = "How long does a whole tool call keep the agent's thread: six events and the guards?"
ROUNDS = 10
CALLS = 1_000
QUERY = "q" * 420
RESULT = "r" * 950


class _Nowhere(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@checkrein.tool(kind="read")
def search(query: str, page: int, scope: str = "all", lang: str = "en") -> dict[str, Any]:
    return {"page": page, "text": RESULT}


def run() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="checkrein-bench-"))
    before = process._client
    try:
        client = process.install(_client(folder))
        with checkrein.run(goal="bench"):
            return _rows(_measured())
    finally:
        client.close()
        process._client = before
        shutil.rmtree(folder)


def _client(folder: Path) -> Client:
    environ = {"CHECKREIN_RECORDERS": str(folder), "HOME": str(folder)}
    os.environ.setdefault("CHECKREIN_RECORDER_BYTES", str(1 << 30))
    return client_of(configs.read(environ, agent="bench", url="off"))


def _measured() -> dict[str, list[int]]:
    """Both in turn, round by round, so that both meet the same machine. Thread time in ns."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere(), max_queue_size=65_536))
    tracer = provider.get_tracer("bench")
    bare = search.__wrapped__  # type: ignore[attr-defined] # set by functools.wraps

    def span(n: int) -> None:
        with tracer.start_as_current_span("execute_tool search") as it:
            it.set_attribute("gen_ai.tool.name", "search")
            it.set_attribute("gen_ai.tool.call.arguments", f'{{"query": "{QUERY}{n}"}}')
            it.set_attribute("gen_ai.agent.name", "bench")
            it.set_attribute("step", n)
            it.set_attribute("tokens", 12)
            it.set_attribute("gen_ai.tool.call.result", bare(QUERY, n)["text"])

    ways: dict[str, Callable[[int], object]] = {
        "bare": lambda n: bare(f"{QUERY}{n}", n),
        "checkrein": lambda n: search(f"{QUERY}{n}", n),
        "opentelemetry": span,
    }
    times: dict[str, list[int]] = {name: [] for name in ways}
    for call in ways.values():
        for n in range(200):
            call(n)
    gc.collect()
    for turn in range(1, ROUNDS + 1):
        for name, call in ways.items():
            for n in range(turn * CALLS, (turn + 1) * CALLS):
                began = time.thread_time_ns()
                call(n)
                times[name].append(time.thread_time_ns() - began)
    provider.shutdown()
    return times


def _rows(times: dict[str, list[int]]) -> list[Row]:
    def at(name: str, share: float) -> float:
        ordered = sorted(times[name])
        return round(ordered[int(len(ordered) * share)] / 1000, 2)

    note = f"{ROUNDS * CALLS} calls, 0.45 kB of arguments, 1 kB of result; limit: one OTel span"
    return [
        Row(name="whole tool call, p50", measured=at("checkrein", 0.5),
            limit=at("opentelemetry", 0.5), target=25, unit="µs", note=note),
        Row(name="whole tool call, p99", measured=at("checkrein", 0.99),
            limit=at("opentelemetry", 0.99), unit="µs"),
        Row(name="the function alone, p50", measured=at("bare", 0.5), unit="µs"),
    ]  # fmt: skip
