"""A learned pact always loads, and lets pass what it was learned from."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.analysis.made import Call, events, lines

from checkrein.analysis.judging import Judge
from checkrein.analysis.learn import Learner
from checkrein.analysis.learn_text import plain, quoted, text
from checkrein.detect.recorded import lines_of, numbered_events_of
from checkrein.events.types import ToolReturned
from checkrein.policy.pact import load
from checkrein.policy.pact_text import TEXT_BYTES_MAX
from checkrein.policy.types import Pact

CORPORA = Path(__file__).resolve().parents[2] / "../shared/corpora"
ODD = [
    "null", "~", "", "on", "a: b", "# x", "*", "a[b]?", "\u2028", "\ud800", "{x}", "- a", "é",
    "type", "properties", "args", "in", "\x00", "'", '"', "\\", " a ", "1", "1e3", "<<", "a\nb",
    "\ufb00",
]  # fmt: skip
names = st.one_of(st.sampled_from(ODD), st.text(max_size=8))
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), names,
    st.lists(st.integers(), max_size=2), st.dictionaries(names, st.integers(), max_size=2),
    st.sampled_from(["https://a.example.com/x", "http://[::1]/", "/srv/a.txt", "../x", "/a/*/b",
                     "c:\\x", "https://ü.example/", "//x", "http://a b/"]),
)  # fmt: skip
fields = st.one_of(names, st.sampled_from(["url", "path", "amount", "file", "host", "base_url"]))
arguments = st.one_of(st.dictionaries(fields, values, max_size=4), values)
tools = st.one_of(names, st.sampled_from(["send", "get_it", "pay"]))
calls = st.lists(
    st.tuples(tools, arguments, st.sampled_from(["ok", ValueError("no")])), max_size=20
)


def learned(runs: list[list[dict[str, Any]]], agent: str = "bot") -> tuple[str, Pact]:
    learner = Learner()
    for _, event in events(*runs):
        learner.see(event)
    said = text(learner, agent, owner=agent, period="30d")
    return said, load(said)


def repeated(tool: str, many: list[Any]) -> list[Call]:
    return [(tool, one, f"{tool} {number}") for number, one in enumerate(many)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls, names)
def test_any_pact_learned_loads_and_lets_its_calls_pass(made: list[Call], agent: str) -> None:
    run = lines(made * 3)
    said, pact = learned([run], agent)
    assert said.splitlines()[0].startswith("# Learned from")
    judge = Judge(lambda name: pact, detecting=False)
    seen = list(events(run))
    failed = {e.call_id for _, e in seen if isinstance(e, ToolReturned) and e.status != "ok"}
    for key, event in seen:
        for line in judge.see(key, event):
            if line.verdict == "deny" and line.tool and line.call_id not in failed:
                assert line.detector == "loops", line


def test_what_was_seen_bounds_what_is_allowed() -> None:
    sent = [{"to": ["ann", "bob"][n % 2], "cents": 10 * n} for n in range(8)]
    said, pact = learned([lines(repeated("send", sent))])
    assert pact.tools is not None
    rule = pact.tools["send"]
    assert rule.kind == "irreversible"
    assert rule.allow == 'args.cents >= 0 && args.cents <= 88 && args.to in ["ann", "bob"]'
    assert "8 calls in 1 runs" in said
    assert pact.budgets.tool_calls == 16
    assert pact.models == ("m-1",)


def test_hosts_and_folders_are_scopes() -> None:
    made = [("fetch", {"url": f"https://api.example.com/{n}"}, n) for n in range(3)]
    made += [("read_file", {"path": f"/srv/docs/{n}.md"}, n) for n in range(3)]
    _, pact = learned([lines(made)])
    assert pact.tools is not None
    assert pact.tools["fetch"].scopes[0].allow == ("api.example.com",)
    assert pact.tools["read_file"].scopes[0].allow == ("/srv/docs/**",)


def test_calls_that_failed_are_no_evidence() -> None:
    _, pact = learned([lines([("wipe", {}, ValueError("no")), ("look", {}, "ok")])])
    assert set(pact.tools or ()) == {"look"}


def test_a_name_that_is_a_pattern_matches_itself_alone() -> None:
    _, pact = learned([lines([("a[b]*", {}, "ok")])])
    judge = Judge(lambda name: pact, detecting=False)
    refused = {
        line.tool
        for key, event in events(lines([("a[b]*", {}, 1), ("ab", {}, 1), ("a[b]c", {}, 1)]))
        for line in judge.see(key, event)
        if line.rule == "tools.pact"
    }
    assert refused == {"ab", "a[b]c"}


def test_a_history_too_large_for_a_pact_still_gives_one() -> None:
    wide = {f"argument_{n:03}": "x" * 50 for n in range(60)}
    made = [(f"tool_{n:03}", wide, "ok") for n in range(400)]
    said, pact = learned([lines(made)])
    assert len(said.encode()) <= TEXT_BYTES_MAX
    assert len(pact.tools or ()) == 400, "what limits arguments goes first"


@given(st.text())
def test_texts_come_back_as_they_went(said: str) -> None:
    import yaml

    whole = said.encode("utf-8", "replace").decode()
    for written in (plain(said), quoted(said)):
        assert "\n" not in written
        assert yaml.safe_load(f"a: {written}")["a"] == whole


@pytest.mark.timeout(300)
@pytest.mark.parametrize("corpus", ["taubench", "agentrx", "asb"])
def test_the_runs_of_a_corpus_pass_the_pact_learned_from_them(corpus: str) -> None:
    path = CORPORA / corpus / "events.jsonl.gz"
    if not path.is_file():
        pytest.skip("no corpora here")
    learner = Learner()
    ok: set[tuple[str, str]] = set()
    for key, event in numbered_events_of(lines_of(path)):
        learner.see(event)
        if isinstance(event, ToolReturned) and event.status == "ok":
            ok.add((key[0], event.call_id))
    pact = load(text(learner, corpus))
    judge = Judge(lambda name: pact, detecting=False)
    denied = [
        line
        for key, event in numbered_events_of(lines_of(path))
        for line in judge.see(key, event)
        if line.verdict == "deny" and line.tool and (line.run_id, line.call_id) in ok
    ]
    assert len(ok) > 100
    # A run names the tools it offered; whatever else it called is no pact's to allow.
    others = [one for one in denied if one.detector not in ("loops", "flow")]
    assert not [one for one in others if one.rule != "tools.unknown"]
