"""ps, show, watch, incidents, agents: what is shown, and what a hostile event cannot do."""

import asyncio
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from tests.cli.conftest import Run
from tests.cli.test_clean import ATTACKS
from tests.server.api.conftest import Stand, event, eventually, live_run
from tests.server.api.test_acting import RUN, incident

from checkrein.bus import subjects
from checkrein.cli import out

GOLDEN_SHOW = Path(__file__).with_name("show.golden.txt")
T0 = 1_760_000_000_000_000_000
MS = 1_000_000
COMMON = {
    "recorder", "seq", "ts", "environment", "room", "agent", "run_id", "task_id", "step", "type",
}  # fmt: skip


def story() -> list[dict[str, Any]]:
    """A run that loops and is halted, with times that do not depend on the clock."""
    call = {"call_id": "t1", "tool": "refund"}
    return [
        event(1, "run.start", ts=T0, step=0, goal="resolve ticket 42"),
        event(2, "step.start", ts=T0 + 10 * MS),
        event(3, "model.request", ts=T0 + 20 * MS, call_id="m1", model="gpt-5-mini"),
        event(4, "model.response", ts=T0 + 520 * MS, call_id="m1", model="gpt-5-mini",
              input_tokens=900, output_tokens=100, usd=0.01, duration_ns=500 * MS,
              content="I will refund it"),
        event(5, "tool.arguments", ts=T0 + 530 * MS, arguments={"order": "A1"}, **call),
        event(6, "tool.invoked", ts=T0 + 540 * MS, **call),
        event(7, "tool.returned", ts=T0 + 740 * MS, duration_ns=200 * MS, result="done", **call),
        event(8, "scope.decision", ts=T0 + 750 * MS, call_id="t2", verdict="deny", guard="loop",
              action={"kind": "tool", "name": "refund"}, reason="the same call 3 times"),
        event(9, "receipt", ts=T0 + 900 * MS, command_id="c", verb="halt", confirmed="supervisor",
              how=[{"rung": "fence", "ms": 0.6}, {"rung": "freeze", "ms": 3.1}]),
        event(10, "run.end", ts=T0 + 1000 * MS, status="halted", reason="it refunds again"),
    ]  # fmt: skip


async def known(stand: Stand, number: int) -> None:
    """Until the api role shows that many runs."""
    async with stand.client() as client:

        async def there() -> bool:
            return len((await client.get("/api/v1/runs")).json()) == number

        await eventually(there)


async def test_show_draws_the_waterfall(stand: Stand, checkrein: Run) -> None:
    await stand.publish(*story())
    await known(stand, 1)
    result = await checkrein("show", RUN)
    text = re.sub(r"started .*", "started  WHEN", result.stdout)
    assert result.exit_code == 0, result.output
    assert text == GOLDEN_SHOW.read_text()


async def test_show_as_json_is_the_list_of_events(stand: Stand, checkrein: Run) -> None:
    await stand.publish(*story())
    await known(stand, 1)
    shown = json.loads((await checkrein("show", RUN[:10], "--json")).stdout)
    assert [e["seq"] for e in shown] == list(range(1, 11))
    assert all(set(e) >= COMMON for e in shown)
    assert shown[4]["arguments"] == {"order": "A1"}


async def test_ps_shows_every_live_run_and_says_why_one_cannot_be_halted(
    stand: Stand, checkrein: Run
) -> None:
    stand.control.live = [
        live_run(RUN), live_run(RUN[:-1] + "2", "wild", can_halt=False, can_halt_why="no one")
    ]  # fmt: skip
    await stand.publish(*story()[:7])
    await known(stand, 2)
    plain = await checkrein("ps")
    lines = plain.stdout.splitlines()
    assert lines[0].split() == [
        "STATUS", "AGENT", "RUN", "ROOM", "STEP", "TOKENS", "USD", "AGE", "QUIET", "HALT",
    ]  # fmt: skip
    assert any(re.search(r"running +support-bot .* 1000 +0\.0100 .* yes L2$", x) for x in lines)
    assert any(re.search(r"running +wild .* NO L2$", x) for x in lines)
    assert lines[-1] == "cannot halt 1 run: no one"
    listed = json.loads((await checkrein("ps", "--json")).stdout)
    assert {run["agent"] for run in listed} == {"support-bot", "wild"}


async def test_ps_is_coloured_on_a_terminal_only_where_it_says_something(
    stand: Stand, checkrein: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = StringIO()
    console = Console(file=paper, force_terminal=True, width=120, color_system="standard",
                      highlight=False, markup=False, emoji=False)  # fmt: skip
    monkeypatch.setattr(out, "is_terminal", lambda: True)
    monkeypatch.setattr(out, "console", lambda: console)
    stand.control.live = [live_run(RUN), live_run(RUN[:-1] + "2", "calm"),
                          live_run(RUN[:-1] + "3", "held", status="paused")]  # fmt: skip
    await stand.publish(*story())
    await known(stand, 3)
    assert (await checkrein("ps", "--all")).exit_code == 0
    drawn = paper.getvalue()
    assert "\x1b[31mhalted" in drawn
    assert "\x1b[33mpaused" in drawn
    calm = next(line for line in drawn.splitlines() if "calm" in line)
    assert "\x1b[3" not in calm


async def test_nothing_to_show_says_what_to_do(checkrein: Run) -> None:
    assert "checkrein run -- COMMAND" in (await checkrein("ps")).stdout
    assert json.loads((await checkrein("ps", "--json")).stdout) == []
    assert "no incidents" in (await checkrein("incidents")).stdout
    assert "checkrein run" in (await checkrein("agents")).stdout


async def test_a_hostile_agent_cannot_write_to_the_terminal(stand: Stand, checkrein: Run) -> None:
    every = "".join(text for text, _ in ATTACKS.values() if "\ud800" not in text)
    agent, room = f"evil{every}", f"room{every}"
    fields = {"agent": agent, "room": room, "ts": T0}
    strange = [
        event(1, "run.start", goal=every, argv=[every], **fields),
        event(2, "tool.arguments", call_id=every, tool=every, arguments={every: every}, **fields),
        event(3, "tool.returned", call_id=every, tool=every, status="error", error=every, **fields),
        event(4, f"new{every}", text=every, **fields),
        event(5, "signal", signal_id="s", detector=every, level="breach", why=every, **fields),
        event(6, "receipt", command_id="c", verb=every, how=[{"rung": every, "ms": 1.0}],
              note=every, **fields),
        event(7, "run.end", status="halted", reason=every, **fields),
    ]  # fmt: skip
    await stand.publish(*strange)
    bucket = await stand.control_bus.bucket(subjects.BUCKET_INCIDENTS)
    case = incident("i", agent=agent, why=every, detector=every, outcome=every, severity=every)
    await bucket.put("i", msgspec.msgpack.encode(case))
    await known(stand, 1)
    for arguments in (["ps", "--all"], ["show", RUN], ["incidents"], ["agents"]):
        for more in ([], ["--json"]):
            result = await checkrein(*arguments, *more)
            assert result.exit_code == 0, result.output
            printed = result.stdout.replace("\n", "")
            assert printed.isprintable(), (arguments, more)
            assert "\u202e" not in printed
            assert more or "evil" in printed


async def test_watch_prints_one_event_a_line(stand: Stand) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "checkrein", "watch", "--json", "--agent", "support-bot",
        "--type", "checkpoint", "--type", "run.end", "--url", stand.url, "--token", stand.token,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None

        async def watching() -> bool:
            async with stand.client() as client:
                return "checkrein_stream_watchers 1" in (await client.get("/metrics")).text

        await eventually(watching, 15)
        await stand.publish(event(1, "run.start"), event(2, "checkpoint", name="\x1b[2J"))
        await stand.publish(event(1, "checkpoint", agent="b", recorder="r2"))
        await stand.publish(event(3, "run.end", status="completed"))
        async with asyncio.timeout(10):
            lines = [await process.stdout.readline() for _ in range(2)]
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined] # its pipe, now
    shown = [json.loads(line) for line in lines]
    assert [e["seq"] for e in shown] == [2, 3]
    assert b"\x1b" not in lines[0]


async def test_incidents_as_json_have_the_shape_of_the_design(stand: Stand, checkrein: Run) -> None:
    bucket = await stand.control_bus.bucket(subjects.BUCKET_INCIDENTS)
    await bucket.put("i", msgspec.msgpack.encode(incident("i")))
    found = json.loads((await checkrein("incidents", "--json")).stdout)
    assert found[0].items() >= {
        "incident_id": "i", "severity": "high", "detector": "loop", "agent": "support-bot",
        "run_id": RUN, "count": 3, "why": "the same call", "status": "open", "outcome": "",
    }.items()  # fmt: skip
    text = (await checkrein("incidents")).stdout
    assert "high      open    support-bot" in text
