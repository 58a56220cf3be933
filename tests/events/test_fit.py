"""Whatever is recorded becomes an event within the bound, that reads back as its own type."""

from typing import Any

import msgspec
import pytest

from checkrein.events import codec
from checkrein.events.fit import facts, fitted
from checkrein.events.limits import EVENT_BYTES_MAX
from checkrein.events.types import (
    TYPES,
    Base,
    Iteration,
    ModelRequest,
    ModelResponse,
    RunStart,
    ScopeDecision,
    Signal,
    ToolReturned,
)

_PLACE: dict[str, Any] = {
    "recorder": "r", "seq": 1, "ts": 1, "environment": "e", "room": "r", "agent": "a",
    "run_id": "u", "task_id": "t", "step": 1,
}  # fmt: skip


def event(kind: type[Base], fields: dict[str, Any]) -> Any:
    raw = msgspec.msgpack.encode(_PLACE | {"type": kind.__struct_config__.tag} | fields)
    assert len(raw) <= EVENT_BYTES_MAX
    decoded = codec.decode(raw)
    assert type(decoded) is kind
    return decoded


def test_a_long_text_field_stays_text_and_says_so() -> None:
    fields = {"call_id": "c", "content": "x" * 1_000_000}
    read = event(ModelResponse, fitted(ModelResponse, fields))
    assert read.content.startswith("xxx")
    assert "[cut: 1000000 characters, sha256 " in read.content


def test_the_largest_payload_is_cut_first() -> None:
    fields = {
        "call_id": "c",
        "messages": [{"role": "user", "content": "y" * 60_000} for _ in range(30)],
        "parameters": {"stop": "z" * 5_000},
    }
    read = event(ModelRequest, fitted(ModelRequest, fields))
    assert read.parameters == fields["parameters"]
    assert read.messages[0]["content"]["original_length"] == 60_000


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_survives_monstrous_fields(name: str) -> None:
    kind = TYPES[name]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    own = [field for field in kind.__struct_fields__ if field not in _PLACE]
    for monster in ("x" * 3_000_000, [["k" * 70_000] * 20] * 5, cyclic, {"a": b"b" * 2_000_000}):
        fields = dict.fromkeys(own, monster)
        fit = fitted(kind, fields)
        raw = msgspec.msgpack.encode(_PLACE | {"type": name} | fit)
        assert len(raw) <= EVENT_BYTES_MAX, name


def test_numbers_that_are_none_are_left_out() -> None:
    assert fitted(ToolReturned, {"call_id": "c", "duration_ns": [1], "result": 1}) == {
        "call_id": "c", "result": 1,
    }  # fmt: skip
    assert fitted(Iteration, {"usd": None}) == {"usd": None}


def test_many_names_are_bounded() -> None:
    read = event(RunStart, fitted(RunStart, {"tools": ["t" * 500] * 100_000, "argv": ["a"]}))
    assert read.tools[0] == "t" * 500
    assert read.argv == ["a"]


def test_facts_are_kept_and_payloads_say_why_they_are_missing() -> None:
    fields = {"call_id": "c", "tool": "search", "result": {"rows": [1]}, "duration_ns": 5}
    read = event(ToolReturned, facts(ToolReturned, fields, "full"))
    assert (read.call_id, read.tool, read.duration_ns) == ("c", "search", 5)
    assert read.result == {"cut": "", "why": "full"}


def test_a_verdict_keeps_what_it_was_about() -> None:
    fields = {
        "call_id": "c", "verdict": "deny", "rule": "limit",
        "action": {"kind": "tool", "name": "refund", "arguments": {"cents": 9}},
    }  # fmt: skip
    read = event(ScopeDecision, facts(ScopeDecision, fields, "full"))
    assert read.action == {"kind": "tool", "name": "refund", "cut": "", "why": "full"}
    assert read.rule == "limit"


def test_evidence_stays_pairs() -> None:
    fields = {
        "signal_id": "s", "detector": "d", "level": "warn", "why": "w", "evidence": [("r", 1)],
    }  # fmt: skip
    assert event(Signal, fitted(Signal, fields)).evidence == [("r", 1)]
    assert event(Signal, facts(Signal, fields, "full")).evidence == [("r", 1)]


def test_a_result_that_was_encoded_for_its_hash_is_still_read_when_it_is_cut() -> None:
    fields = {
        "call_id": "c", "tool": "t", "result": msgspec.Raw(msgspec.msgpack.encode({"rows": [1]})),
        "error": "e" * 100_000,
    }  # fmt: skip
    assert event(ToolReturned, fitted(ToolReturned, fields)).result == {"rows": [1]}
