"""The seam to the history: the same promises kept by ClickHouse and by the twin in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.sample import START_NS, TASK, event, rows, shuffled_batches, tool_call, whole_run

from checkrein.store import Row, RowRefused, Store, StoreError, UnknownQuery, open_store
from checkrein.store.runs import RunSummary, as_row, fold, from_row
from checkrein.store.texts import hash_of
from checkrein.store.types import QUERIES
from checkrein.world import REAL

HOUR_NS = 3600 * 10**9


@pytest.fixture(params=["memory", "chdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "memory://" if request.param == "memory" else f"chdb://{tmp_path}/store"
    opened = open_store(url, REAL)
    yield opened
    opened.close()


def stored(store: Store, run_id: str = "run-1") -> list[dict[str, Any]]:
    """A run's events as given back, without their cursors."""
    found = store.query("events_of_run", {"run_id": run_id})
    return [{k: v for k, v in one.items() if k != "position"} for one in found]


def test_events_come_back_whole_and_in_order(store: Store) -> None:
    events = whole_run("run-1")
    assert store.write(rows(events)) == len(events)
    assert stored(store) == events


STRANGE = [
    {"result": None},
    {"tool": 7, "status": ["odd"], "usd": "much", "duration_ns": -5},
    {"tool": "", "usd": 0.0, "duration_ns": 0, "reason": ""},
    {"usd": 2, "duration_ns": 2**63, "tokens": True},
    {"usd": 0.1, "input_tokens": 3, "goal": "g", "call_id": "c", "verdict": "deny"},
    {"tool": "t" * 300, "goal": "g" * 3000, "call_id": "c" * 300},
    {"text": "ä" * 2000, "deep": {"a": [{"b": "ß" * 1100}, 1.5, None, True]}},
    {"map": {"$content": "not a reference", "x": {"$content": None}}},
    {"map": {"$content": "L" * 1500}, "$content": "0" * 64},
    {"zero\x00byte": "a\x00b", "quotes": "'\"\\{x:String}", "emoji": "🐎"},
    {"numbers": [1, -1, 2**53 + 1, 1e300, 0.1]},
    {"at": 5, "body": "b", "partition": 3, "stored_at": 1, "chain": "x", "failed": 2},
]


@pytest.mark.parametrize("own", STRANGE, ids=range(len(STRANGE)))
def test_unknown_types_and_fields_are_kept_as_they_are(store: Store, own: dict[str, Any]) -> None:
    events = [event(1, "hologram", **own), event(2, "tool.returned", **own)]
    store.write(rows(events))
    assert stored(store) == events


def test_an_event_is_stored_once_however_often_it_is_written(store: Store) -> None:
    events = whole_run("run-1")
    assert store.write(rows(events[:10])) == 10
    assert store.write(rows(events[5:15])) == 5
    assert store.write(rows(events + events)) == len(events) - 15
    assert store.write(rows(events)) == 0
    assert store.write([]) == 0
    other = event(3, "tool.invoked", call_id="another", task_id="b2" * 16, run_id="run-9")
    assert store.write(rows([other | {"recorder": events[0]["recorder"]}], partition=11)) == (0)
    assert stored(store) == events
    assert store.query("counts", {})[0]["events"] == len(events)


def test_the_same_number_of_another_recorder_or_agent_is_another_event(store: Store) -> None:
    first = event(1, "heartbeat")
    others = [first | {"recorder": "rec-2"}, first | {"agent": "bot-2"}]
    assert store.write(rows([first, *others])) == 3
    assert len(stored(store)) == 3


@pytest.mark.parametrize("seed", range(4))
def test_batches_in_any_order_and_repeated_give_the_same_history(store: Store, seed: int) -> None:
    runs = [whole_run(f"run-{n}", agent=f"bot-{n % 2}") for n in range(3)]
    events = [fields for run in runs for fields in run]
    new = sum(store.write(rows(batch)) for batch in shuffled_batches(events, seed))
    assert new == len(events)
    for run in runs:
        assert stored(store, run[0]["run_id"]) == run
        (row,) = store.query("run", {"run_id": run[0]["run_id"]})
        assert from_row(row) == folded(run)
    hours = store.query("tool_errors_hourly", {})
    assert sum(hour["calls"] for hour in hours) == 9


def folded(events: list[dict[str, Any]]) -> RunSummary:
    summary = None
    for fields in events:
        summary = fold(summary, fields)
    assert summary is not None
    return summary


ENDINGS = [
    [event(2, "model.request", call_id="m")],
    [event(2, "model.request", call_id="m"), event(3, "model.response", call_id="m", usd=1)],
    [event(2, "tool.invoked", call_id="t"), event(3, "status", status="paused", reason="asked"),
     event(4, "tool.returned", call_id="t", error="boom")],
    [event(2, "approval.requested", approval_id="a"), event(3, "status", status="", goal="new")],
    [event(2, "escalation.raised", escalation_id="e")],
    [event(2, "run.end", status="lost", recorder="role:control"),
     event(3, "run.end", status="completed", tokens=900, usd=3.5)],
    [event(2, "run.end", status="halted", reason="by hand"), event(3, "run.end", status="failed")],
    [event(9, "signal", recorder="role:watch", detector="loop", level="breach", why="w")],
    [event(2, "tool.returned", status="denied"), event(3, "tool.returned", status="error")],
    [event(2, "run.end", status="completed", goal="G" * 2000, reason="R" * 2000)],
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=range(len(ENDINGS)))
def test_the_store_summarises_a_run_as_the_projection_does(
    store: Store, ending: list[dict[str, Any]]
) -> None:
    events = [event(1, "run.start", goal="first", parent_run_id="run-0"), *ending]
    for fields in reversed(events):
        store.write(rows([fields]))
    (row,) = store.query("run", {"run_id": "run-1"})
    assert from_row(row) == folded(events)
    assert {k: v for k, v in row.items() if k != "state"} == {
        k: v for k, v in as_row(folded(events)).items() if k != "state"
    }


def test_runs_come_latest_first_and_by_filter(store: Store) -> None:
    for number in range(5):
        moved = [
            fields | {"ts": fields["ts"] + number * HOUR_NS}
            for fields in whole_run(f"run-{number}", agent=f"bot-{number % 2}")
        ]
        store.write(rows(moved[:-1] if number == 2 else moved))

    def ids(**given: Any) -> list[str]:
        return [row["run_id"] for row in store.query("runs", given)]

    assert ids() == ["run-4", "run-3", "run-2", "run-1", "run-0"]
    assert ids(limit=2) == ["run-4", "run-3"]
    assert ids(agent="bot-1") == ["run-3", "run-1"]
    assert ids(status="running") == ["run-2"]
    assert ids(status="completed", agent="bot-0") == ["run-4", "run-0"]
    assert ids(since=START_NS + 3 * HOUR_NS) == ["run-4", "run-3"]
    assert ids(room="elsewhere") == []
    assert ids(task_id=TASK, environment="dev", room="refunds", limit=1) == ["run-4"]


def test_events_are_paged_by_cursor_without_gap_or_repeat(store: Store) -> None:
    events = whole_run("run-1", calls=12)
    store.write(rows(events))
    got: list[dict[str, Any]] = []
    after = None
    while page := store.query("events_of_task", {"task_id": TASK, "limit": 7, "after": after}):
        got += page
        after = page[-1]["position"]
    assert [one["seq"] for one in got] == [fields["seq"] for fields in events]


def test_events_are_found_by_filter(store: Store) -> None:
    store.write(rows(whole_run("run-1")) + rows(whole_run("run-2", agent="bot-2", room="other")))

    def seqs(**given: Any) -> list[tuple[str, int]]:
        return [(one["run_id"], one["seq"]) for one in store.query("events", given)]

    assert seqs(types=["run.start"]) == [("run-1", 1), ("run-2", 1)]
    assert seqs(types=["run.start", "run.end"], room="other") == [("run-2", 1), ("run-2", 23)]
    assert seqs(agent="bot", run_id="run-2") == []
    assert seqs(since=START_NS + 5_000_000, until=START_NS + 7_000_000, agent="bot") == [
        ("run-1", 5),
        ("run-1", 6),
    ]
    assert len(seqs(limit=9)) == 9
    assert seqs(types=[]) == []


def test_a_clock_that_steps_back_does_not_disorder_a_recorder(store: Store) -> None:
    events = [event(n, "heartbeat", ts=START_NS + (n if n < 4 else n - 1000)) for n in range(1, 8)]
    store.write(rows(events[:5]))
    store.write(rows(events[5:]))
    assert [one["seq"] for one in stored(store)] == [1, 2, 3, 4, 5, 6, 7]
    assert stored(store) == events


def test_long_texts_are_stored_once_and_found_by_hash(store: Store) -> None:
    text = "horse " * 1000
    events = [event(n, "tool.returned", result={"page": text, "n": n}) for n in range(1, 21)]
    store.write(rows(events))
    assert stored(store) == events
    assert store.query("content", {"hash": hash_of(text)}) == [
        {"hash": hash_of(text), "text": text}
    ]
    assert store.query("content", {"hash": "0" * 64}) == []
    assert store.query("content", {"hash": "no hash"}) == []
    assert store.query("counts", {})[0]["contents"] == 1


def test_tools_by_hour(store: Store) -> None:
    for hour in range(2):
        for number in range(10):
            failed = {"status": "error", "error": "boom"} if number < 3 * hour else {}
            if number == 9:
                failed = {"status": "denied"}
            calls = tool_call(
                hour * 1000 + number * 6 + 1, duration_ns=(number + 1) * 1_000_000, **failed
            )
            store.write(rows([one | {"ts": one["ts"] + hour * HOUR_NS} for one in calls]))
    first, second = store.query("tool_errors_hourly", {})
    assert first["hour"] % HOUR_NS == 0
    assert second["hour"] - first["hour"] == HOUR_NS
    assert (first["calls"], first["errors"], first["refused"]) == (10, 0, 1)
    assert (second["calls"], second["errors"], second["error_rate"]) == (10, 3, 0.3)
    assert first["mean_ms"] == pytest.approx(5.5)
    assert first["max_ms"] == 10.0
    assert first["p50_ms"] == pytest.approx(5, rel=0.02)
    assert first["p99_ms"] == pytest.approx(9, rel=0.02)
    assert store.query("tool_errors_hourly", {"since": second["hour"]}) == [second]
    assert store.query("tool_errors_hourly", {"until": second["hour"]}) == [first]
    assert store.query("tool_errors_hourly", {"agent": "bot"}) == [first, second]
    assert store.query("tool_errors_hourly", {"agent": "nobody"}) == []


def test_agents_with_what_they_spent(store: Store) -> None:
    store.write(rows(whole_run("run-1")) + rows(whole_run("run-2", agent="z")))
    store.write(rows(whole_run("run-3")))
    bot, other = store.query("agents", {})
    assert (bot["agent"], bot["runs"], bot["tokens"], bot["usd"]) == ("bot", 2, 720, 1.5)
    assert (other["agent"], other["runs"]) == ("z", 1)
    assert bot["last_seen"] == START_NS + 23_000_000
    assert store.query("agents", {"since": START_NS + HOUR_NS}) == []


def test_marks_know_the_highest_number_and_the_chain_of_each_lane(store: Store) -> None:
    store.write([Row(1, event(1, "heartbeat")), Row(1, event(2, "heartbeat"), chain=b"\x01" * 32)])
    store.write([Row(2, event(5, "heartbeat"), chain=b"\x02" * 32), Row(2, event(4, "heartbeat"))])
    store.write([Row(1, event(9, "heartbeat", recorder="other"))])
    marks = store.query("marks", {"recorder": "rec-1"})
    assert [(m["agent"], m["partition"], m["seq"], m["chain"]) for m in marks] == [
        ("bot", 1, 2, "01" * 32),
        ("bot", 2, 5, "02" * 32),
    ]
    assert len(store.query("marks", {})) == 3
    assert store.query("marks", {"agent": "nobody"}) == []


def test_runs_are_found_by_the_beginning_of_their_id(store: Store) -> None:
    for run_id in ("0199a-1", "0199a-2", "0199b-1"):
        store.write(rows(whole_run(run_id)))
    found = store.query("find_run", {"prefix": "0199a"})
    assert found == [{"run_id": "0199a-1"}, {"run_id": "0199a-2"}]
    assert store.query("find_run", {"prefix": "0199", "limit": 1}) == [{"run_id": "0199a-1"}]
    assert store.query("find_run", {"prefix": "%"}) == []


def test_a_row_over_a_limit_is_refused_by_name_and_nothing_is_written(store: Store) -> None:
    good = event(1, "heartbeat")
    for bad in (
        event(2, "heartbeat", room="r" * 300),
        event(0, "heartbeat"),
        event(2, "heartbeat", ts=-1),
        event(2, "heartbeat", step=2**40),
        event(2, "heartbeat", odd={object()}),
        event(2, "heartbeat", odd="\ud800"),
    ):
        with pytest.raises(RowRefused) as refused:
            store.write(rows([good, bad]))
        assert refused.value.recorder == "rec-1"
        assert refused.value.seq == bad["seq"]
    assert store.query("counts", {})[0]["events"] == 0
    assert store.write(rows([good])) == 1


def test_unknown_queries_and_parameters_are_refused_by_name(store: Store) -> None:
    with pytest.raises(UnknownQuery, match="no query 'drop'"):
        store.query("drop", {})
    with pytest.raises(UnknownQuery, match="'colour'"):
        store.query("runs", {"colour": "red"})
    with pytest.raises(UnknownQuery, match="needs 'run_id'"):
        store.query("run", {})
    with pytest.raises(UnknownQuery, match="'limit' is 0"):
        store.query("runs", {"limit": 0})
    with pytest.raises(StoreError, match="no position"):
        store.query("events", {"after": "nonsense"})


def test_every_named_query_answers_on_an_empty_store(store: Store) -> None:
    needed = {"run_id": "x", "task_id": "x", "prefix": "x", "hash": "0" * 64}
    for name in QUERIES:
        from checkrein.store.parameters import PARAMETERS

        given = {key: needed[key] for key, spec in PARAMETERS[name].items() if spec.required}
        found = store.query(name, given)
        assert found == [] or name == "counts"


def test_rest_loses_nothing(store: Store) -> None:
    store.write(rows(whole_run("run-1")))
    store.rest()
    store.rest()
    assert len(store.query("runs", {})) == 1
