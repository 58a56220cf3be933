"""What the real store keeps when its process is killed, and what it does when the disk is full."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store.sample import event, rows, whole_run
from tests.store.writing_child import batch

from checkrein.store import Row, StoreError, StoreFull, open_store
from checkrein.store.clickhouse import ClickHouseStore
from checkrein.store.runs import fold, from_row
from checkrein.world import REAL, SimWorld

ROOT = Path(__file__).resolve().parents[2]
CALLS = 20
DAY_S = 86_400


def killed_after(url: str, first: int, acknowledged: int) -> int:
    """Runs the child until so many batches are acknowledged, kills it, says the last one."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.writing_child", url, str(first), str(CALLS)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        last = first
        for _ in range(acknowledged):
            last = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split()
    return int(rest[-1]) if rest else last


def test_a_killed_writer_loses_nothing_acknowledged_and_counts_nothing_twice(
    tmp_path: Path,
) -> None:
    url, chance, last = f"chdb://{tmp_path}/store", random.Random(7), -1
    for _ in range(4):
        last = killed_after(url, last + 1, chance.randint(1, 9))
        store = open_store(url, REAL)
        found = store.query("events_of_run", {"run_id": "run-1", "limit": 10_000})
        expected = [fields for number in range(last + 1) for fields in batch(number, CALLS)]
        got = [{k: v for k, v in one.items() if k != "position"} for one in found]
        assert got[: len(expected)] == expected
        unacknowledged = len(got) - len(expected)
        assert unacknowledged in (0, CALLS * 6 + 1)  # a batch stands whole or not at all
        store.write(rows(batch(last + 1, CALLS)))  # as the bus would deliver it again
        last += 1
        (row,) = store.query("run", {"run_id": "run-1"})
        assert row["tool_calls"] == (last + 1) * CALLS
        assert sum(h["calls"] for h in store.query("tool_errors_hourly", {})) == row["tool_calls"]
        assert store.query("marks", {})[0]["seq"] == (last + 1) * (CALLS * 6 + 1)
        store.close()


@pytest.mark.parametrize(
    "aggregate", ["runs", "tool_hours", "agent_tool_hours", "agent_hours", "marks"]
)
def test_an_aggregate_that_a_crash_left_behind_catches_up_at_the_next_opening(
    tmp_path: Path, aggregate: str
) -> None:
    store = ClickHouseStore(f"chdb://{tmp_path}/store", REAL)
    events = whole_run("run-1")
    store.write(rows(events[:9]))
    store.feed()
    store._writer.command(f"DETACH TABLE checkrein.to_{aggregate}")
    store.write(rows(events[9:15]))
    store.write(rows(events[15:]))
    store.feed()
    store._writer.command(f"ATTACH TABLE checkrein.to_{aggregate}")
    store.close()
    store = ClickHouseStore(f"chdb://{tmp_path}/store", REAL)
    summary = None
    for fields in events:
        summary = fold(summary, fields)
    assert from_row(store.query("run", {"run_id": "run-1"})[0]) == summary
    for given in ({}, {"agent": "bot"}):
        assert [hour["calls"] for hour in store.query("tool_errors_hourly", given)] == [1, 2]
    assert store.query("marks", {})[0]["seq"] == len(events)
    (hour,) = store._writer.query(
        "SELECT sum(events), sum(tokens) FROM checkrein.agent_hours"
    ).result_rows
    assert tuple(hour) == (len(events), 360)
    store.close()


def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    store = open_store(f"chdb://{tmp_path}/store", REAL)
    with pytest.raises(StoreError, match="another process has the store"):
        open_store(f"chdb://{tmp_path}/store", REAL)
    store.close()
    open_store(f"chdb://{tmp_path}/store", REAL).close()


def test_tables_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    store = ClickHouseStore(f"chdb://{tmp_path}/store", REAL)
    store._writer.command("INSERT INTO checkrein.versions VALUES (99, 0)")
    store.close()
    with pytest.raises(StoreError, match="version 99"):
        open_store(f"chdb://{tmp_path}/store", REAL)


def test_a_write_is_one_part_and_so_is_what_it_feeds(tmp_path: Path) -> None:
    store = ClickHouseStore(f"chdb://{tmp_path}/store", REAL)
    store._writer.command("SYSTEM STOP MERGES")
    many = [event(n, "tool.returned", tool=f"t{n % 50}", text="x" * 900) for n in range(1, 30_001)]
    store.write(rows(many))
    store.feed()
    parts = store._writer.query(
        "SELECT table, count() FROM system.parts WHERE database = 'checkrein' AND active "
        "AND table != 'versions' GROUP BY table"
    ).result_rows
    assert dict(parts) == dict.fromkeys(
        ("events", "runs", "tool_hours", "agent_tool_hours", "agent_hours", "marks"), 1
    )
    store.close()


def days_ago(days: int) -> SimWorld:
    world = SimWorld(1)
    world.step_wall_clock((REAL.now_ns() - world.now_ns()) / 1e9 - days * DAY_S)
    return world


def test_detail_goes_after_30_days_summaries_after_180_refusals_never(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/store"
    for days in (200, 40, 20):
        store = open_store(url, days_ago(days))
        refused = {"arguments": f"{days} " * 1000}
        store.write(rows([
            event(days, "run.start", goal="g"),
            event(days + 1, "output", content="secret " * 500 + str(days)),
            event(days + 2, "scope.decision", call_id="c", action=refused, verdict="deny"),
        ]))  # fmt: skip
        store.close()
    store = ClickHouseStore(url, REAL)
    for table in ("events", "contents"):
        store._writer.command(f"OPTIMIZE TABLE checkrein.{table} FINAL")
    left = store.query("events", {})
    assert [one["seq"] for one in left] == [20, 21, 22, 40, 42, 202]
    assert left[-1]["action"] == {"arguments": "200 " * 1000}
    assert left[1]["content"] == "secret " * 500 + "20"
    assert store.query("counts", {})[0]["contents"] == 4
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_queries_go_on_and_so_does_writing_when_there_is_room(
    small_disk: Path,
) -> None:
    store = ClickHouseStore(f"chdb://{small_disk}/store", REAL)
    chance = random.Random(3)
    written, number = 0, 1
    with pytest.raises(StoreFull, match="writing"):  # noqa: PT012 # fails at one of many writes
        while written < 100_000:
            batch_rows = [
                Row(1, event(number + n, "output", content=chance.randbytes(400).hex()))
                for n in range(2000)
            ]
            written += store.write(batch_rows)
            number += 2000
    assert len(store.query("events", {"limit": 10_000})) == min(written, 10_000)
    assert store.query("counts", {})[0]["events"] == written
    assert len(store.query("runs", {})) <= 1
    with pytest.raises(StoreFull):
        store.write(batch_rows)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert store.write(batch_rows) == 2000
    assert store.query("counts", {})[0]["events"] == written + 2000
    assert store.query("run", {"run_id": "run-1"})[0]["run_id"] == "run-1"
    (hours,) = store._writer.query("SELECT sum(events) FROM checkrein.agent_hours").result_rows
    assert hours[0] == written + 2000
    store.close()
