"""Runs and steps: how they begin and end, what they hold together."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import checkrein
from checkrein.policy.types import Verdict
from checkrein.sdk.traceparent import task_of
from checkrein.world import is_trace_id, is_uuid7
from tests.sdk.fakes import House, ScriptedGuard, halted, house


@checkrein.tool
def look(n: int = 0) -> int:
    return n


def ends(it: House) -> list[tuple[str, str]]:
    return [(e["status"], e.get("reason", "")) for e in it.recorder.of("run.end")]


def test_a_run_begins_and_completes() -> None:
    with house() as it:
        with checkrein.run(goal="g", task_type="t", labels={"a": "b"}) as run:
            assert is_uuid7(run.run_id)
            assert is_trace_id(run.task_id)
        start = it.recorder.of("run.start")[0]
        assert (start["goal"], start["task_type"], start["labels"]) == ("g", "t", {"a": "b"})
        assert start["agent"] == "bot"
        assert ends(it) == [("completed", "")]
        assert it.client.runs == {}


def test_a_run_that_raises_ends_as_failed_with_the_reason() -> None:
    with house() as it:
        with pytest.raises(ValueError, match="wrong"), checkrein.run():
            raise ValueError("wrong")
        assert ends(it) == [("failed", "ValueError: wrong")]


def test_a_run_that_asks_for_a_human_ends_as_escalated() -> None:
    with house() as it:
        with checkrein.run() as run:
            run.escalate_to_human("over my head", to="ann")
        assert ends(it) == [("escalated", "")]
        assert it.recorder.of("escalation.raised")[0]["to"] == "ann"


async def test_a_cancelled_run_ends_as_failed_and_the_cancellation_goes_on() -> None:
    begun = asyncio.Event()

    async def agent() -> None:
        async with checkrein.run():
            begun.set()
            await asyncio.Event().wait()

    with house() as it:
        task = asyncio.ensure_future(agent())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends(it)[0][0] == "failed"


def test_each_step_ends_with_its_iteration_record() -> None:
    with house() as it:
        with checkrein.run(goal="sum") as run:
            for step in run.steps():
                with checkrein.model("openai", "gpt-5-mini", [step.number]) as call:
                    call.end("x", input_tokens=10, output_tokens=2)
                look(step.number)
                step.confidence = 0.5
                if step.number == 2:
                    break
        assert [e["step"] for e in it.recorder.of("step.start")] == [1, 2]
        assert [e["step"] for e in it.recorder.of("step.end")] == [1, 2]
        first = it.recorder.of("iteration")[0]
        assert first["actions"] == ["model gpt-5-mini", "look"]
        assert first["tools"] == ["look"]
        assert (first["goal"], first["confidence"], first["tokens"]) == ("sum", 0.5, 12)
        assert first["outcome"] == "ok"
        assert it.recorder.of("run.end")[0]["steps"] == 2
        assert it.recorder.of("run.end")[0]["tokens"] == 24
        hashes = [e["context_hash"] for e in it.recorder.of("step.end")]
        assert hashes[0] != hashes[1]


async def test_steps_of_an_async_run() -> None:
    with house() as it:
        async with checkrein.run() as run:
            async for step in run.steps():
                if step.number == 3:
                    break
        assert len(it.recorder.of("step.start")) == 3
        assert it.recorder.types()[-1] == "run.end"
        assert len(it.recorder.of("step.end")) == 3


def test_a_model_call_is_a_step_where_the_author_counts_none() -> None:
    with house() as it:
        with checkrein.run():
            for n in range(2):
                with checkrein.model("p", "m", [n]) as call:
                    call.end("ok")
                look(n)
        assert [e["step"] for e in it.recorder.of("tool.invoked")] == [1, 2]
        assert len(it.recorder.of("iteration")) == 2


def test_a_spent_budget_of_steps_is_denied_and_halts_the_run_where_no_server_does() -> None:
    with house(pact="pact: bot\nbudgets: {steps: 2}\n") as it:
        seen: list[int] = []
        with halted(), checkrein.run() as run:
            with pytest.raises(checkrein.Denied, match="steps"):
                seen += [step.number for step in run.steps()]
            look()
        assert [e["step"] for e in it.recorder.of("step.start")] == [1, 2]
        assert ends(it)[0][0] == "halted"
        assert "runaway" in ends(it)[0][1]


def test_a_runaway_refusal_halts_at_once_without_a_server() -> None:
    no = Verdict(kind="deny", guard="loop", rule="loop", reason="again", runaway=True)
    with house(ScriptedGuard(look=no)) as it:
        with halted() as stopped, checkrein.run():
            with pytest.raises(checkrein.Denied):
                look()
            look()
        assert stopped.value.issued_by == "rule:loop"
        assert ends(it) == [("halted", "runaway: again")]


def test_nested_runs_share_the_task_and_name_their_parent() -> None:
    with house() as it:
        with checkrein.run() as outer:
            with checkrein.run(agent="helper") as inner:
                look()
            look()
        assert inner.task_id == outer.task_id
        starts = it.recorder.of("run.start")
        assert starts[1]["parent_run_id"] == outer.run_id
        assert starts[1]["agent"] == "helper"
        assert [e["run_id"] for e in it.recorder.of("tool.invoked")] == [
            inner.run_id, outer.run_id,
        ]  # fmt: skip


def test_halting_a_run_halts_the_runs_inside_it() -> None:
    with house() as it:
        with halted(), checkrein.run() as outer, checkrein.run():
            it.halt(outer)
            look()
        assert [status for status, _ in ends(it)] == ["halted", "halted"]


def test_threads_pools_and_tasks_belong_to_the_run_they_were_started_in() -> None:
    with house(ScriptedGuard()) as it:
        with checkrein.run() as run:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(look).result()

            async def main() -> None:
                await asyncio.gather(
                    asyncio.to_thread(look),
                    asyncio.get_running_loop().run_in_executor(None, look),
                    asyncio.ensure_future(asyncio.to_thread(look)),
                )

            asyncio.run(main())
        assert [e["run_id"] for e in it.recorder.of("tool.invoked")] == [run.run_id] * 5


def test_a_pool_older_than_the_run_serves_each_run_as_its_own() -> None:
    with house() as it, ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        ids = []
        for _ in range(2):
            with checkrein.run() as run:
                pool.submit(look).result()
                ids.append(run.run_id)
        assert [e["run_id"] for e in it.recorder.of("tool.invoked")] == ids


def test_calls_outside_of_any_run_belong_to_one_ambient_run() -> None:
    with house() as it:
        look()
        look(1)
        found = {e["run_id"] for e in it.recorder.of("tool.invoked")}
        assert len(found) == 1
        assert len(it.recorder.of("run.start")) == 1
    assert ends(it) == [("completed", "")]


def test_the_first_run_of_a_supervised_process_adopts_its_run() -> None:
    own = "01890000-0000-7000-8000-000000000001"
    with house(run_id=own, task_id="ab" * 16) as it:
        with checkrein.run(goal="mine") as run:
            assert (run.run_id, run.task_id) == (own, "ab" * 16)
        with checkrein.run() as second:
            assert second.run_id != own
            assert second.task_id == "ab" * 16
        assert it.recorder.of("run.start")[0]["parent_run_id"] == own
        assert it.recorder.of("status")[0]["goal"] == "mine"


def test_two_processes_of_a_supervisor_do_not_adopt_the_same_run(tmp_path) -> None:  # type: ignore[no-untyped-def] # a fixture
    own = "01890000-0000-7000-8000-000000000002"
    supervisor = str(tmp_path / "agent.sock")
    for expected in (True, False):
        with house(run_id=own, supervisor=supervisor), checkrein.run() as run:
            assert (run.run_id == own) is expected


def test_the_task_crosses_processes_by_traceparent() -> None:
    with house():
        with checkrein.run() as here:
            header = checkrein.traceparent()
        with checkrein.run(traceparent=header) as there:
            assert there.task_id == here.task_id
        with checkrein.run(traceparent="00-nonsense") as other:
            assert is_trace_id(other.task_id)


@pytest.mark.parametrize(
    "header",
    [
        "", None, "x", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "ff-" + "a" * 32 + "-" + "1" * 16
        + "-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01", "00-" + "a" * 31 + "-" + "1" * 16
        + "-01", "00-" + "a" * 32 + "-" + "1" * 16 + "-01-more",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_carries_no_task(header: str | None) -> None:
    assert task_of(header) == ""


def test_a_later_version_of_traceparent_is_read() -> None:
    assert task_of("01-" + "A" * 32 + "-" + "1" * 16 + "-01-more") == "a" * 32


def test_the_environment_may_name_the_task() -> None:
    with house(traceparent="00-" + "c" * 32 + "-" + "1" * 16 + "-01"), checkrein.run() as run:
        assert run.task_id == "c" * 32


def test_an_unreadable_pact_denies_everything_and_says_why(
    tmp_path,
    caplog: pytest.LogCaptureFixture,  # type: ignore[no-untyped-def] # a fixture
) -> None:
    path = tmp_path / "pact.yaml"
    path.write_text("pact: bot\nbugdets: {steps: 1}\n")
    with (
        pytest.raises(AssertionError, match="pact"),  # counted as our fault
        house(pact_path=str(path)),
        checkrein.run(),
        pytest.raises(checkrein.Denied, match="bugdets"),
    ):
        look()
    assert "pact.yaml" in caplog.text
