"""Approvals and escalations over HTTP and in the terminal, with the real control role behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkrein.bus import subjects
from checkrein.bus.approvals import Ask, Asked, Raise, checked
from checkrein.bus.messages import Registration, RunRecord, SessionRecord, decode, encode
from checkrein.policy.digest import digest_of
from checkrein.server import control
from checkrein.server.context import RoleContext
from checkrein.world import REAL
from tests.server.api.conftest import TASK, Stand, eventually

RUN = "0198a000-0000-7000-8000-000000000001"
SESSION = "session-1"


class Holder:
    """A process with the SDK: asks, over the bus."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.bus = stand.control_server.connect()
        self.key = bytes.fromhex((stand.data / "keys" / "control.pub").read_text().strip())

    async def register(self) -> None:
        bucket = await self.bus.bucket(subjects.BUCKET_SESSIONS)
        record = SessionRecord(
            session=SESSION, kind="sdk", agents=["bot"], user="", expires_at=2**62
        )
        await bucket.put(SESSION, encode(record))
        run = RunRecord(
            run_id=RUN, task_id=TASK, agent="bot", room="refunds", environment="test",
            session=SESSION, holder="sdk", started_at=REAL.now_ns(),
        )  # fmt: skip
        await self.bus.request(
            subjects.registration(SESSION), encode(Registration(session=SESSION, runs=[run]))
        )

    async def say(self, word: Ask | Raise) -> Asked:
        data = await self.bus.request(subjects.ask(SESSION), encode(word), 5)
        digest = word.digest if isinstance(word, Ask) else ""
        return checked(decode(data, Asked), self.key, SESSION, digest)

    async def ask(self, number: int = 1, rule: str = "tools.refund.ask") -> Asked:
        arguments = {"order": f"A{number}", "cents": 2500}
        return await self.say(
            Ask(
                claim=f"claim-{number}", run_id=RUN, task_id=TASK, agent="bot", kind="tool",
                tool="refund", arguments=arguments, rule=rule, reason="over 20 dollars",
                words="the customer is angry", undo={"kind": "compensable", "undo": "reverse"},
                digest=digest_of("bot", "tool", "refund", arguments, "p", "v1"), pact="p",
                pact_version="v1",
            )
        )  # fmt: skip


@pytest.fixture
async def holder(stand: Stand) -> AsyncIterator[Holder]:
    await stand.control.without_gates()
    stop, ready = asyncio.Event(), asyncio.Event()
    context = RoleContext(
        world=REAL, role="control", data=stand.data, bus=stand.events_server.connect(),
        control_bus=stand.control_server.connect(), stop=stop, ready=ready.set,
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        group.create_task(control.run(context))
        await asyncio.wait_for(ready.wait(), 10)
        made = Holder(stand)
        await made.register()
        yield made
        stop.set()
        await made.bus.close()


Checkrein = Callable[..., Awaitable[Result]]


@pytest.fixture
def checkrein(stand: Stand) -> Checkrein:
    from checkrein.cli.root import root

    async def run(*arguments: str) -> Result:
        environment = {"CHECKREIN_URL": stand.url, "CHECKREIN_TOKEN": stand.token}
        runner = CliRunner(env=environment)
        return await asyncio.to_thread(runner.invoke, root, list(arguments), prog_name="checkrein")

    return run


async def test_listed_shown_and_decided(stand: Stand, holder: Holder) -> None:
    asked = await holder.ask()
    async with stand.client() as client:
        (line,) = (await client.get("/api/v1/approvals")).json()
        assert set(line) >= {
            "approval_id", "agent", "run_id", "tool", "arguments", "rule", "reason", "asked_at",
            "expires_at", "undo",
        }  # fmt: skip
        assert "claim" not in line
        assert line["arguments"] == {"order": "A1", "cents": 2500}
        path = f"/api/v1/approvals/{asked.approval_id}"
        assert (await client.get(path)).json() == line
        body = {"decision": "approve", "reason": "fine", "by": "ann", "digest": line["digest"]}
        decided = await client.post(f"{path}/decision", json=body)
        assert decided.status_code == 200, decided.text
        assert (decided.json()["status"], decided.json()["decided_by"]) == ("approved", "ann")
        assert (await holder.ask()).status == "approved"
        again = await client.post(f"{path}/decision", json=body)
        assert (again.status_code, again.json()["error"]) == (409, "approval_used")
        assert (await client.get("/api/v1/approvals")).json() == []
        assert len((await client.get("/api/v1/approvals?all=true")).json()) == 1


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"decision": "approve", "by": "bot"}, 409, "asked for this itself"),
        ({"decision": "approve", "by": "agent:bot"}, 409, "asked for this itself"),
        ({"decision": "approve", "by": SESSION}, 409, "asked for this itself"),
        ({"decision": "approve", "digest": "0" * 64}, 409, "digest"),
        ({"decision": "approve", "raise": {"usd": 2}}, 409, "asks for no budget"),
        ({"decision": "deny"}, 400, "needs a reason"),
        ({"decision": "approve", "for_s": 1e9}, 400, "for up to"),
        ({"decision": "maybe"}, 400, "decision"),
        ({"decision": "approve", "other": 1}, 400, "other"),
    ],
)
async def test_what_may_not_be_is_refused_with_the_reason(
    stand: Stand, holder: Holder, body: dict[str, Any], status: int, detail: str
) -> None:
    asked = await holder.ask()
    async with stand.client() as client:
        answer = await client.post(f"/api/v1/approvals/{asked.approval_id}/decision", json=body)
        assert answer.status_code == status, answer.text
        assert detail in answer.json()["detail"]
        assert (await client.get("/api/v1/approvals")).json()[0]["status"] == "open"


async def test_unknown_ones_and_a_missing_token(stand: Stand, holder: Holder) -> None:
    asked = await holder.ask()
    async with stand.client() as client:
        body = {"decision": "approve"}
        answer = await client.post("/api/v1/approvals/nothing/decision", json=body)
        assert answer.status_code == 404
        assert (await client.get("/api/v1/approvals/nothing")).status_code == 404
        bare = await client.post(
            f"/api/v1/approvals/{asked.approval_id}/decision", json=body,
            headers={"Authorization": ""},
        )  # fmt: skip
        assert bare.status_code == 401


async def test_changed_arguments_and_several_at_once(stand: Stand, holder: Holder) -> None:
    first = await holder.ask(1)
    second, third = await holder.ask(2), await holder.ask(3, "other")
    async with stand.client() as client:
        changed = {"order": "A1", "cents": 1}
        answer = await client.post(
            f"/api/v1/approvals/{first.approval_id}/decision",
            json={"decision": "approve", "arguments": changed},
        )
        assert answer.json()["edited_arguments"] == changed
        got = await holder.ask(1)
        assert (got.edited, got.arguments) == (True, changed)
        body = {"decision": "deny", "reason": "no", "rule": "tools.refund.ask"}
        lines = (await client.post("/api/v1/approvals/decisions", json=body)).json()
        assert [(line["id"], line["ok"]) for line in lines] == [(second.approval_id, True)]
        assert (await holder.ask(2)).status == "denied"
        assert (await holder.ask(3, "other")).approval_id == third.approval_id


async def test_the_terminal_shows_the_call_first_and_the_agents_words_last(
    holder: Holder, checkrein: Checkrein
) -> None:
    asked = await holder.ask()
    shown = (await checkrein("approvals")).stdout.splitlines()
    assert shown[0].startswith(f"{asked.approval_id}  bot  refund  expires in")
    assert shown[1].split(None, 1) == ["arguments", '{"order": "A1", "cents": 2500}']
    assert "compensable, undone by reverse" in "\n".join(shown)
    assert shown[-1].strip() == "the agent says the customer is angry"
    (line,) = json.loads((await checkrein("approvals", "--json")).stdout)
    assert line["approval_id"] == asked.approval_id


async def test_the_terminal_decides(holder: Holder, checkrein: Checkrein) -> None:
    first, second, third = [await holder.ask(n) for n in (1, 2, 3)]
    approved = await checkrein("approve", first.approval_id, "--reason", "fine", "--by", "ann")
    assert approved.exit_code == 0, approved.output
    assert approved.stdout == f"{first.approval_id}  approved\n"
    assert (await holder.ask(1)).by == "ann"
    again = await checkrein("approve", first.approval_id, second.approval_id)
    assert again.exit_code == 1
    assert "used up" in again.stdout
    assert (await holder.ask(2)).status == "approved"
    denied = await checkrein("deny", third.approval_id, "--reason", "no", "--json")
    assert json.loads(denied.stdout) == [
        {"id": third.approval_id, "ok": True, "status": "denied", "error": ""}
    ]
    assert (await holder.ask(3)).reason == "no"


async def test_the_terminal_edits_grants_and_batches(holder: Holder, checkrein: Checkrein) -> None:
    first = await holder.ask(1)
    edited = await checkrein("approve", first.approval_id, "--edit", '{"order": "A1", "cents": 5}')
    assert edited.exit_code == 0, edited.output
    assert (await holder.ask(1)).arguments == {"order": "A1", "cents": 5}
    second = await holder.ask(2)
    granted = await checkrein("approve", second.approval_id, "--for", "30m")
    assert granted.exit_code == 0, granted.output
    assert (await holder.ask(3)).status == "approved"
    await holder.ask(4, "other")
    batch = await checkrein("deny", "--batch", "rule:other", "--reason", "no")
    assert batch.exit_code == 0, batch.output
    assert (await holder.ask(4, "other")).status == "denied"
    budget = await holder.ask(5, "budgets.usd")
    raised = await checkrein("approve", budget.approval_id, "--raise", "usd=2")
    assert raised.exit_code == 0, raised.output
    assert (await holder.ask(5, "budgets.usd")).raised == {"usd": 2.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve",), "name approvals by their ids"),
        (("approve", "x", "--batch", "agent:a"), "name approvals by their ids"),
        (("approve", "--batch", "nobody"), "agent:NAME, rule:NAME"),
        (("approve", "x", "--edit", "{"), "--edit is not JSON"),
        (("approve", "x", "y", "--edit", "{}"), "for one approval"),
        (("approve", "x", "--for", "soon"), "is not a duration"),
        (("approve", "x", "--raise", "usd"), "write it like usd=2"),
        (("approve", "x", "--raise", "wall=5"), "is not a duration"),
    ],
)
async def test_the_terminal_says_what_is_wrong(
    checkrein: Checkrein, arguments: tuple[str, ...], said: str
) -> None:
    result = await checkrein(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


async def test_escalations_over_http_and_in_the_terminal(
    stand: Stand, holder: Holder, checkrein: Checkrein
) -> None:
    for name in ("escalation-a", "escalation-b"):
        word = Raise(
            escalation_id=name, run_id=RUN, task_id=TASK, agent="bot", to="oncall", why="large",
            within_s=300.0,
        )  # fmt: skip
        assert (await holder.say(word)).status == "open"
    shown = (await checkrein("escalations")).stdout
    assert "escalation-a" in shown
    assert "oncall" in shown
    done = await checkrein("acknowledge", "escalation-a", "--note", "on it", "--by", "ann")
    assert done.exit_code == 0, done.output
    assert (await checkrein("acknowledge", "escalation-a")).exit_code == 1
    async with stand.client() as client:
        (line,) = (await client.get("/api/v1/escalations")).json()
        assert line["escalation_id"] == "escalation-b"
        path = "/api/v1/escalations/escalation-b/acknowledge"
        refused = await client.post(path, json={"by": "bot"})
        assert refused.status_code == 409
        assert (await client.post(path, json={})).json()["status"] == "acknowledged"
        lines = (await client.get("/api/v1/escalations?all=true")).json()
        assert {line["acknowledged_by"] for line in lines} == {"ann", "operator"}
        missing = await client.post("/api/v1/escalations/none/acknowledge", json={})
        assert missing.status_code == 404
    assert (await checkrein("escalations")).stdout == "nothing waits for anybody\n"


async def test_without_control_the_answer_says_so(stand: Stand) -> None:
    await stand.control.without_gates()
    async with stand.client() as client:

        async def away() -> bool:
            return (await client.get("/api/v1/approvals")).status_code == 503

        assert await eventually(away)
