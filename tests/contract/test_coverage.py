"""Which actions were seen by whom: the same answer from ClickHouse and from the twin."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.sample import START_NS, event, rows

from checkrein.store import Store, open_store
from checkrein.store.coverage import COUNTS
from checkrein.world import REAL

GATEWAY = {"recorder": "rec-gateway"}


@pytest.fixture(params=["memory", "chdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "memory://" if request.param == "memory" else f"chdb://{tmp_path}/store"
    opened = open_store(url, REAL)
    yield opened
    opened.close()


def decided(seq: int, call_id: str, verdict: str = "deny", **more: Any) -> dict[str, Any]:
    action = {"kind": more.pop("kind", "model"), "name": "x", "arguments": {"long": "w" * 2000}}
    return event(seq, "scope.decision", call_id=call_id, verdict=verdict, action=action, **more)


def passed(seq: int, call_id: str, **more: Any) -> dict[str, Any]:
    return event(seq, "passage", **({"call_id": call_id, "path": "openai"} | GATEWAY | more))


EVENTS = [
    # seen by both: the SDK records, the gateway writes its passage; tried twice, it is one
    event(1, "model.request", call_id="m1"),
    event(2, "model.response", call_id="m1", input_tokens=5),
    passed(1, "m1", announced=True, streamed=True, guards=["models", "pact a 1"], status="ok",
           redacted={"email": 2, "card": 1}, provider_tools=["web_search"]),
    passed(2, "m1", announced=True, guards=["models", "redact"], status="failed"),
    # by the SDK only
    event(3, "model.request", call_id="m2"),
    event(4, "tool.invoked", call_id="t1", tool="search", kind="read"),
    event(5, "tool.returned", call_id="t1", tool="search"),
    # by the gateway only: its own record, and one that is announced and recorded by nobody
    event(3, "model.request", call_id="m3", **GATEWAY),
    passed(4, "m3"),
    passed(5, "m4", announced=True, status="cut"),
    event(9, "tool.invoked", call_id="t4", tool="proposed by a model", **GATEWAY),
    event(10, "tool.returned", call_id="t4", tool="proposed by a model", **GATEWAY),
    passed(6, "t2", kind="tool", path="mcp", guards=["tools", "pact a 1"]),
    # refused: by the SDK before it was made, by the gateway, twice said of one call
    decided(6, "m5"),
    decided(7, "t3", kind="tool"),
    event(8, "tool.returned", call_id="t3", tool="pay", status="denied"),
    passed(7, "m6", status="refused"),
    decided(8, "m6", **GATEWAY),
    # nobody's refusal: of a pact that is only watched, or no refusal
    decided(9, "m2", shadow=True),
    decided(10, "t1", verdict="modify", kind="tool"),
    decided(11, "o1", kind="output"),
    event(12, "step.start"),
]  # fmt: skip


def test_each_action_is_counted_once_by_who_saw_it(store: Store) -> None:
    store.write(rows(EVENTS))
    (row,) = store.query("coverage", {})
    assert row == {
        "agent": "bot", "environment": "dev",
        "model_both": 1, "model_sdk": 1, "model_gateway": 3, "model_denied": 2,
        "tool_both": 0, "tool_sdk": 1, "tool_gateway": 2, "tool_denied": 1,
    }  # fmt: skip
    assert store.query("coverage", {"agent": "nobody"}) == []
    first_two = {"until": START_NS + 3_000_000, "agent": "bot"}
    assert store.query("coverage", first_two)[0]["model_sdk"] == 0
    assert store.query("coverage", first_two)[0]["model_both"] == 1


def test_the_paths_name_the_guards_that_ran(store: Store) -> None:
    store.write(rows(EVENTS))
    mcp, openai = store.query("coverage_paths", {"run_id": "run-1"})
    assert openai == {
        "agent": "bot", "environment": "dev", "path": "openai", "calls": 5, "streamed": 1,
        "announced": 3, "refused": 1, "cut": 1, "redacted": 3,
        "guards": ["models", "pact a 1", "redact"], "provider_tools": ["web_search"],
    }  # fmt: skip
    assert (mcp["path"], mcp["calls"], mcp["guards"]) == ("mcp", 1, ["pact a 1", "tools"])
    assert store.query("coverage_paths", {"since": START_NS + 7_000_000}) == [
        openai | {"calls": 1, "streamed": 0, "announced": 0, "refused": 1, "cut": 0, "redacted": 0,
                  "guards": [], "provider_tools": []}
    ]  # fmt: skip


def test_runs_are_told_apart_the_latest_first(store: Store) -> None:
    other = [one | {"run_id": "run-2", "recorder": one["recorder"] + "2"} for one in EVENTS[:2]]
    store.write(rows([*EVENTS, *other]))
    found = store.query("coverage_runs", {})
    assert [row["run_id"] for row in found] == ["run-2", "run-1"]
    assert (found[0]["model_sdk"], found[0]["model_both"]) == (1, 0)
    assert store.query("coverage_runs", {"limit": 1}) == found[:1]
    (both,) = store.query("coverage", {})
    assert all(both[name] == sum(row[name] for row in found) for name in COUNTS)


_PARTS = st.fixed_dictionaries({
    "type": st.sampled_from([
        "model.request", "model.response", "tool.invoked", "tool.returned", "passage",
        "scope.decision", "reasoning",
    ]),
    "call_id": st.sampled_from(["", "a", "b", "c"]),
    "run_id": st.sampled_from(["run-1", "run-2"]),
    "recorder": st.sampled_from(["rec-1", "rec-2"]),
    "environment": st.sampled_from(["dev", "production"]),
}, optional={
    "kind": st.sampled_from(["tool", "model", "read"]),
    "announced": st.booleans(),
    "streamed": st.booleans(),
    "shadow": st.booleans(),
    "status": st.sampled_from(["ok", "refused", "cut", "denied", "error"]),
    "verdict": st.sampled_from(["allow", "deny"]),
    "path": st.sampled_from(["openai", "mcp"]),
    "guards": st.lists(st.sampled_from(["tools", "flow"]), max_size=2),
    "redacted": st.dictionaries(st.sampled_from(["email", "card"]), st.integers(0, 9)),
    "action": st.fixed_dictionaries({"kind": st.sampled_from(["model", "tool", "output"])}),
})  # fmt: skip


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    folder = tmp_path_factory.mktemp("coverage")
    opened = [open_store("memory://", REAL), open_store(f"chdb://{folder}/store", REAL)]
    yield opened
    for store in opened:
        store.close()


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(_PARTS, max_size=40))
def test_both_engines_count_alike(engines: list[Store], parts: list[dict[str, Any]]) -> None:
    agent = REAL.nonce()[:12]  # events of other examples are another agent's
    events = [event(seq, "x", **part, agent=agent) for seq, part in enumerate(parts, 1)]
    for one in events:  # whether a recorder is a gateway's is not told by agent
        one["recorder"] += agent
    answers = []
    for store in engines:
        store.write(rows(events))
        names = ("coverage", "coverage_runs", "coverage_paths")
        answers.append([store.query(query, {"agent": agent}) for query in names])
    assert answers[0] == answers[1]
