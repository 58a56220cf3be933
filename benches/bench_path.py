"""How many events a second does the whole path take, with every role on the same cores as the load?

All envelopes are made first, then sent as fast as the bus acknowledges them; a canary is sent last.
The path is done when the canary can be queried from the store (the archive writes in order), when
`watch` has said its signal about it (it reads in order), and when the live stream has shown it.
"""

import asyncio
import json
import subprocess
from typing import Any

from benches.bench_ingest import _without_bus as store_alone
from benches.harness import Row
from benches.whole import Screen, canary, events_bus, start_load, whole
from tests.system import System

from checkrein.bus import subjects
from checkrein.bus.messages import Answer, Query, decode, encode
from checkrein.world import REAL

QUESTION = "How many events a second go from agents into the history, with watch keeping up?"

EVENTS = 120_000
WATCHED = 60_000
WATCHED_RATE = 5_000
AGENTS = 20
WAIT_S = 120.0


def run() -> list[Row]:
    with whole() as running:
        bare = asyncio.run(_sent(running, "bare"))
        full = asyncio.run(_through(running, EVENTS))
        paced = asyncio.run(_through(running, WATCHED, WATCHED_RATE))
    behind = {name: at - paced["sent"] for name, at in paced.items()}
    inserted, _ = store_alone()
    return [
        Row(
            name="agent to archive, durable and queryable", measured=EVENTS / full["stored"],
            limit=bare, target=15_000.0, unit="events/s",
            note=f"{EVENTS:,} events of {AGENTS} agents, every role at work; limit: bare JetStream "
            f"appends of such envelopes; bus alone took {full['sent']:.1f} s of "
            f"{full['stored']:.1f} s",
        ),
        Row(
            name="the same beside a bare Arrow insert", measured=EVENTS / full["stored"],
            limit=inserted, unit="events/s", note="limit: bare chDB, nothing else at work",
        ),
        Row(
            name="watch, all detectors", measured=EVENTS / full["signal"], limit=bare,
            target=5_000.0, unit="events/s", note="in the same flood",
        ),
        Row(
            name="live stream of the api", measured=EVENTS / full["shown"], limit=bare,
            unit="events/s", note="in the same flood",
        ),
        Row(
            name=f"at {WATCHED_RATE:,} events/s: watch behind the last event",
            measured=behind["signal"] * 1e3, target=1_000.0, unit="ms",
            note=f"after {paced['sent']:.0f} s of it; behind the last event: store "
            f"{behind['stored']:.2f} s, live stream {behind['shown']:.2f} s",
        ),
    ]  # fmt: skip


async def _sent(running: System, subject: str) -> float:
    """Events a second of bare appends, nothing reading them."""
    load = start_load(running, EVENTS // 2, subject, AGENTS, "prepared")
    told = await asyncio.to_thread(_go, load)
    return float(told["sent"] / told["seconds"])


async def _through(running: System, count: int, rate: int = 0) -> dict[str, float]:
    """Seconds from the first event until each part is done with the last."""
    run_id, subject, data, message_id = canary()
    done: dict[str, float] = {}
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def arrived(event: dict[str, Any], _at: int) -> None:
        name = {"signal": "signal", "run.end": "shown"}.get(event["type"])
        if name and event["run_id"] == run_id and name not in done:
            done[name] = REAL.monotonic_ns() / 1e9
            loop.call_soon_threadsafe(seen.set)

    screen = Screen(running, arrived, agent="canary")
    if rate:
        load = start_load(running, count, rate, AGENTS)
    else:
        load = start_load(running, count, "ev", AGENTS, "prepared")
    async with events_bus(running) as bus, asyncio.timeout(WAIT_S):
        before = await _stored(bus)
        if not rate:
            await asyncio.to_thread(_made, load)
        began = REAL.monotonic_ns() / 1e9
        told = await asyncio.to_thread(_finish, load)
        done["sent"] = REAL.monotonic_ns() / 1e9
        await bus.append(subject, data, message_id, timeout_s=30)
        while not await _is_stored(bus, run_id):  # noqa: ASYNC110 # what is measured is the asking
            await asyncio.sleep(0.02)
        done["stored"] = REAL.monotonic_ns() / 1e9
        if await _stored(bus) - before < told["sent"]:
            raise RuntimeError("the store has fewer events than were sent")
        while not {"signal", "shown"} <= done.keys():
            seen.clear()
            await seen.wait()
    if screen.skipped:
        raise RuntimeError("the live stream left out some of the canary's few events")
    return {name: at - began for name, at in done.items()}


def _go(load: "subprocess.Popen[str]") -> dict[str, float]:
    _made(load)
    return _finish(load)


def _made(load: "subprocess.Popen[str]") -> None:
    """Waits until the load has made its envelopes."""
    assert load.stdout is not None
    load.stdout.readline()


def _finish(load: "subprocess.Popen[str]") -> dict[str, float]:
    said, _ = load.communicate("go\n", timeout=WAIT_S)
    if load.returncode != 0:
        raise RuntimeError(f"the load ended with {load.returncode}")
    told: dict[str, float] = json.loads(said.splitlines()[-1])
    return told


async def _stored(bus: Any) -> int:
    return int((await _ask(bus, "counts"))[0]["events"])


async def _is_stored(bus: Any, run_id: str) -> bool:
    rows = await _ask(bus, "events_of_run", run_id=run_id, limit=10)
    return any(row["type"] == "run.end" for row in rows)


async def _ask(bus: Any, name: str, **parameters: Any) -> list[dict[str, Any]]:
    raw = await bus.request(
        subjects.history(name), encode(Query(name=name, parameters=parameters)), 30
    )
    return decode(raw, Answer).rows
