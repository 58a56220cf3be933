"""Memory, notes, hand-written model calls, and what the package's front door does."""

import subprocess
import sys

import pytest

import checkrein
from checkrein.sdk import quiet
from tests.sdk.fakes import house


@checkrein.tool
def fetch(memory: object) -> None:
    memory["price"] = 5  # type: ignore[index]


def test_memory_records_reads_and_writes_with_hash_and_provenance() -> None:
    with house() as it, checkrein.run() as run:
        memory = checkrein.memory(name="notes")
        memory["a"] = {"x": 1}
        assert memory["a"] == {"x": 1}
        memory.write("b", 2, provenance="user", attested=True)
        assert memory["b"] == 2
        fetch(memory)
        assert memory["price"] == 5
        written = it.recorder.of("memory.write")
        read = it.recorder.of("memory.read")
        assert [e["key"] for e in written] == ["notes/a", "notes/b", "notes/price"]
        assert [e["provenance"] for e in written] == [f"run:{run.run_id}", "user", "tool:fetch"]
        assert written[1]["attested"] is True
        assert [e["value_hash"] for e in read] == [e["value_hash"] for e in written]
        assert [e["provenance"] for e in read] == [e["provenance"] for e in written]


def test_memory_is_a_mapping_over_the_one_it_was_given() -> None:
    under: dict[str, object] = {"k": 1}
    with house() as it:
        memory = checkrein.memory(under)
        assert dict(memory) == {"k": 1}
        assert memory.get("gone", 7) == 7
        with pytest.raises(KeyError):
            memory["gone"]
        del memory["k"]
        assert under == {}
        assert len(memory) == 0
        assert "k" not in memory
        missed = [e for e in it.recorder.of("memory.read") if e.get("found") is False]
        assert len(missed) == 2


def test_a_memory_that_fails_underneath_says_so_itself() -> None:
    class Broken(dict[str, object]):
        def __setitem__(self, key: str, value: object) -> None:
            raise OSError("disk gone")

    with house() as it:
        with pytest.raises(OSError, match="disk gone"):
            checkrein.memory(Broken())["k"] = 1
        assert it.recorder.of("memory.write") == []


def test_notes() -> None:
    with house() as it, checkrein.run() as run:
        checkrein.output({"answer": 42}, format="json")
        digest = checkrein.checkpoint({"at": 1}, name="half")
        header = checkrein.handoff("writer", {"text": "x"}, why="done")
        checkrein.feedback(rating=1, label="good", by="ann")
        checkrein.reasoning("because", confidence=0.25)
        assert it.recorder.of("checkpoint")[0]["state_hash"] == digest
        assert run.task_id in header
        assert it.recorder.of("output")[0]["content"] == {"answer": 42}
        assert it.recorder.of("handoff")[0]["to_agent"] == "writer"
        assert it.recorder.of("reasoning")[0]["confidence"] == 0.25


def test_a_model_call_as_context_manager() -> None:
    with house() as it:
        with checkrein.model("openai", "gpt-5-mini", [{"role": "user", "content": "hi"}]) as call:
            call.first_token()
            call.end("hello", input_tokens=1_000_000, output_tokens=0, finish_reason="stop")
        request, response = it.recorder.of("model.request")[0], it.recorder.of("model.response")[0]
        assert request["call_id"] == response["call_id"]
        assert response["content"] == "hello"
        assert response["usd"] > 0
        assert 0 < response["first_token_ns"] <= response["duration_ns"]


def test_a_model_without_a_price_costs_nobody_knows_what() -> None:
    with house() as it:
        with checkrein.model("nobody", "no-such-model-9", "hi") as call:
            call.end("x", input_tokens=5, output_tokens=5)
        assert it.recorder.of("model.response")[0].get("usd") is None


def test_a_model_call_that_fails_says_so() -> None:
    with house() as it:
        with pytest.raises(ConnectionError), checkrein.model("p", "m"):
            raise ConnectionError("refused")
        assert it.recorder.of("model.response")[0]["error"] == "ConnectionError: refused"


async def test_model_as_a_decorator() -> None:
    @checkrein.model("p", "m")
    def ask(messages: str) -> dict[str, object]:
        return {"content": messages.upper(), "input_tokens": 3, "output_tokens": 4}

    @checkrein.model("p", "m")
    async def ask_later(messages: str) -> str:
        return messages

    with house() as it:
        assert ask("a")["content"] == "A"
        assert await ask_later("b") == "b"
        assert [e["content"] for e in it.recorder.of("model.response")] == ["A", "b"]
        assert it.recorder.of("model.response")[0]["input_tokens"] == 3


def test_a_fault_of_ours_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    before = quiet.faults.copy()
    for _ in range(3):
        with quiet.quiet("a test's place"):
            raise RuntimeError("ours")
    assert quiet.faults["a test's place"] == 3
    assert caplog.text.count("a test's place failed") == 1
    quiet.faults.clear()
    quiet.faults.update(before)


def test_importing_checkrein_imports_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import checkrein; "
        "print(sorted(set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "['checkrein']"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in checkrein.__all__:
        assert getattr(checkrein, name) is not None
    assert set(dir(checkrein)) == set(checkrein.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'halt_all'"):
        checkrein.halt_all  # type: ignore[attr-defined] # noqa: B018 # that is the point
