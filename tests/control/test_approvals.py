"""Approvals in control: bound to the action, used once, on the clock, over restarts."""

from typing import Any

import pytest
from tests.control.rig import SIGNER, TASK, Answers, Holder, Rig

from checkrein.bus.approvals import Approval, Ask, Asked, Decide, Decided, GateQuery, checked
from checkrein.bus.messages import decode, encode
from checkrein.bus.orders import OrderRefused
from checkrein.control.types import Audit, Deciding, Limits, Seeking
from checkrein.policy.digest import digest_of

ARGUMENTS = {"order": "A1", "cents": 2500}


@pytest.fixture
def rig() -> Rig:
    rig = Rig(1)
    Holder(rig, "s1").start("r1")
    rig.run_for(1)
    return rig


def question(claim: str = "c1", **changes: Any) -> Ask:
    fields: dict[str, Any] = {
        "claim": claim, "run_id": "r1", "task_id": TASK, "agent": "bot", "kind": "tool",
        "tool": "refund", "arguments": ARGUMENTS, "rule": "tools.refund.ask",
        "reason": "over 20 dollars", "pact": "p", "pact_version": "v1", "life_s": 900.0,
    } | changes  # fmt: skip
    digest = digest_of(
        fields["agent"], fields["kind"], fields["tool"], fields["arguments"], fields["pact"],
        fields["pact_version"],
    )  # fmt: skip
    return Ask(**({"digest": digest} | fields))


def ask(rig: Rig, claim: str = "c1", session: str = "s1", **changes: Any) -> Asked:
    answers = Answers(Asked)
    rig.give(Seeking(session, question(claim, **changes), answers))
    rig.run_for(0.1)
    assert len(answers) == 1
    found: Asked = answers[0]
    return found


def decide(rig: Rig, *ids: str, decision: str = "approve", **changes: Any) -> Decided:
    answers = Answers(Decided)
    fields: dict[str, Any] = {"by": "ann", "reason": "because"} | changes
    rig.give(Deciding(Decide(decision=decision, ids=list(ids), **fields), answers))  # type: ignore[arg-type]
    rig.run_for(0.1)
    assert len(answers) == 1
    found: Decided = answers[0]
    return found


def one(rig: Rig, approval_id: str) -> Approval:
    assert rig.control is not None
    (found,) = rig.control.approvals(GateQuery(ids=[approval_id]))
    return found


def refused(decided: Decided) -> str:
    (done,) = decided.done
    assert not done.ok
    return done.error


def test_an_approval_says_who_what_and_why_and_is_used_by_the_call_that_asked(rig: Rig) -> None:
    opened = ask(rig, undo={"kind": "compensable", "undo": "reverse"}, words="the user said so")
    assert opened.status == "open"
    shown = one(rig, opened.approval_id)
    assert (shown.agent, shown.run_id, shown.tool, shown.arguments) == (
        "bot", "r1", "refund", ARGUMENTS,
    )  # fmt: skip
    assert (shown.rule, shown.words) == ("tools.refund.ask", "the user said so")
    assert shown.undo == {"kind": "compensable", "undo": "reverse"}
    assert shown.claim == ""
    assert shown.expires_at - shown.asked_at == 900 * 10**9
    assert decide(rig, opened.approval_id).done[0].ok
    answer = checked(ask(rig), SIGNER.public, "s1", shown.digest)
    assert (answer.status, answer.by) == ("approved", "ann")
    assert one(rig, opened.approval_id).status == "used"
    assert {a.record["kind"] for a in rig.audit.values() if isinstance(a, Audit)} >= {
        "approval.requested", "approval.approved", "approval.used",
    }  # fmt: skip


def test_the_one_who_waits_is_sent_the_word_on_it_signed(rig: Rig) -> None:
    opened = ask(rig)
    rig.sent.clear()
    decide(rig, opened.approval_id)
    assert [send.subject for send in rig.sent] == ["cmd.s1"]


def test_asking_again_is_the_same_question_and_a_lost_answer_comes_again(rig: Rig) -> None:
    first = ask(rig)
    assert ask(rig).approval_id == first.approval_id
    decide(rig, first.approval_id)
    assert ask(rig).status == "approved"
    again = ask(rig)
    assert (again.status, again.approval_id) == ("approved", first.approval_id)


def test_a_second_call_like_the_first_is_a_question_of_its_own(rig: Rig) -> None:
    first = ask(rig)
    waiting = ask(rig, "c2")
    assert waiting.approval_id == first.approval_id  # perhaps the same call, come back
    rig.run_for(2)
    ask(rig)  # no: the first is still there
    second = ask(rig, "c2")
    assert second.status == "open"
    assert second.approval_id != first.approval_id
    decide(rig, first.approval_id)
    assert ask(rig).status == "approved"
    assert ask(rig, "c2").status == "open"


def test_an_agent_that_comes_back_takes_its_own_question_over(rig: Rig) -> None:
    first = ask(rig)
    decide(rig, first.approval_id)
    Holder(rig, "s2").start("r2")
    rig.run_for(7)
    answer = ask(rig, "c2", "s2", run_id="r2")
    assert (answer.status, answer.approval_id) == ("approved", first.approval_id)
    assert one(rig, first.approval_id).used_run == "r2"
    late = ask(rig)  # the first was not dead after all: it has lost its turn
    assert late.status == "open"
    assert late.approval_id != first.approval_id


def test_a_process_that_is_gone_is_not_waited_for(rig: Rig) -> None:
    first = ask(rig)
    rig.holders["s1"].dead = True
    Holder(rig, "s2").start("r2")
    rig.run_for(4.5)
    assert ask(rig, "c2", "s2", run_id="r2").approval_id == first.approval_id
    decide(rig, first.approval_id)
    assert ask(rig, "c2", "s2", run_id="r2").status == "approved"


def test_another_task_does_not_find_it(rig: Rig) -> None:
    first = ask(rig)
    Holder(rig, "s2").start("r2", task="f" * 32)
    rig.run_for(7)
    assert ask(rig, "c2", "s2", run_id="r2").approval_id != first.approval_id


@pytest.mark.parametrize(
    "changed", [{"arguments": {"order": "A1", "cents": 2501}}, {"pact_version": "v2"}]
)
def test_an_approval_is_good_for_nothing_else(rig: Rig, changed: dict[str, Any]) -> None:
    first = ask(rig)
    decide(rig, first.approval_id)
    rig.run_for(7)
    other = ask(rig, "c2", **changed)
    assert (other.status, other.approval_id == first.approval_id) == ("open", False)
    same_claim = ask(rig, "c1", **changed)
    assert (same_claim.status, same_claim.reason) == (
        "denied", "this claim was made for another action",
    )  # fmt: skip


def test_a_digest_that_is_not_the_actions_is_refused(rig: Rig) -> None:
    answer = ask(rig, digest="0" * 64)
    assert (answer.status, answer.reason) == ("denied", "the digest is not that of the action")


def test_a_word_for_another_action_or_session_is_not_believed(rig: Rig) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id)
    answer = ask(rig)
    for session, digest in (("s1", "0" * 64), ("s2", question().digest)):
        with pytest.raises(OrderRefused):
            checked(answer, SIGNER.public, session, digest)
    with pytest.raises(OrderRefused):
        checked(answer, bytes(32), "s1", question().digest)


def test_used_twice_is_refused(rig: Rig) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id)
    ask(rig)
    assert "used up" in refused(decide(rig, opened.approval_id))
    assert "used up" in refused(decide(rig, opened.approval_id, decision="deny"))


def test_no_answer_is_a_no(rig: Rig) -> None:
    opened = ask(rig, life_s=30.0)
    rig.run_for(29)
    assert one(rig, opened.approval_id).status == "open"
    rig.run_for(2)
    assert one(rig, opened.approval_id).status == "expired"
    assert "expired" in refused(decide(rig, opened.approval_id))
    assert ask(rig, life_s=30.0).status == "expired"


def test_an_approval_that_nobody_uses_expires(rig: Rig) -> None:
    opened = ask(rig, life_s=30.0)
    decide(rig, opened.approval_id)
    rig.run_for(301)
    assert one(rig, opened.approval_id).status == "expired"
    assert ask(rig, life_s=30.0).status == "expired"


@pytest.mark.parametrize(
    "by", ["bot", "agent:bot", "s1", "session:s1", "r1", "run:r1"],
)  # fmt: skip
def test_the_agent_itself_decides_nothing(rig: Rig, by: str) -> None:
    opened = ask(rig)
    assert "asked for this itself" in refused(decide(rig, opened.approval_id, by=by))
    assert one(rig, opened.approval_id).status == "open"


def test_an_agents_credential_decides_nothing(rig: Rig) -> None:
    opened = ask(rig)
    assert "a person must" in decide(rig, opened.approval_id, by_kind="agent").error


def test_a_denial_takes_an_unused_approval_back(rig: Rig) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id)
    assert decide(rig, opened.approval_id, decision="deny").done[0].ok
    answer = ask(rig)
    assert (answer.status, answer.reason) == ("denied", "because")


def test_another_digest_than_the_one_seen_is_refused(rig: Rig) -> None:
    opened = ask(rig)
    assert "digest" in refused(decide(rig, opened.approval_id, digest="0" * 64))
    assert decide(rig, opened.approval_id, digest=question().digest).done[0].ok


def test_changed_arguments_come_with_the_signed_word(rig: Rig) -> None:
    opened = ask(rig)
    changed = {"order": "A1", "cents": 100}
    assert "another kind" in refused(
        decide(rig, opened.approval_id, edit=True, arguments=["A1", 100])
    )
    decide(rig, opened.approval_id, edit=True, arguments=changed)
    answer = checked(ask(rig), SIGNER.public, "s1", question().digest)
    assert (answer.edited, answer.arguments) == (True, changed)


def test_a_batch_and_a_class_for_a_while(rig: Rig) -> None:
    ids = [ask(rig, f"c{n}", arguments={"order": f"A{n}"}).approval_id for n in range(3)]
    other = ask(rig, "d", tool="send", rule="tools.send.ask").approval_id
    decided = decide(rig, rule="tools.refund.ask")
    assert [one.id for one in decided.done] == ids
    assert one(rig, other).status == "open"
    opened = ask(rig, "e", arguments={"order": "B"})
    beside = ask(rig, "f", arguments={"order": "C"})
    decide(rig, opened.approval_id, for_s=60.0)
    assert ask(rig, "f", arguments={"order": "C"}).status == "approved"  # it waited already
    assert one(rig, beside.approval_id).granted_by == opened.approval_id
    granted = ask(rig, "g", arguments={"order": "D"})
    assert granted.status == "approved"
    assert one(rig, granted.approval_id).decided_by == "ann"
    for n, changes in enumerate(({"pact_version": "v2"}, {"rule": "x"}, {"tool": "send"})):
        assert ask(rig, f"h{n}", **changes).status == "open"
    rig.crash()
    rig.boot()
    rig.run_for(1)
    assert ask(rig, "i", arguments={"order": "E"}).status == "approved"
    rig.run_for(60)
    assert ask(rig, "j", arguments={"order": "F"}).status == "open"


def test_a_class_is_taken_back(rig: Rig) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id, for_s=600.0)
    assert ask(rig).status == "approved"
    assert decide(rig, opened.approval_id, decision="deny").done[0].ok
    assert ask(rig, "c2", arguments={"order": "Z"}).status == "open"


def test_a_budget_is_raised_by_an_amount(rig: Rig) -> None:
    opened = ask(rig)
    assert "asks for no budget" in refused(decide(rig, opened.approval_id, raised={"usd": 2.0}))
    budget = ask(rig, "c2", rule="budgets.usd", arguments={"usd": 2})
    assert "by how much" in refused(decide(rig, budget.approval_id))
    assert "not for a while" in refused(decide(rig, budget.approval_id, for_s=60.0))
    assert "more than nothing" in decide(rig, budget.approval_id, raised={"usd": -2.0}).error
    decide(rig, budget.approval_id, raised={"usd": 2.0})
    answer = ask(rig, "c2", rule="budgets.usd", arguments={"usd": 2})
    assert checked(answer, SIGNER.public, "s1", one(rig, budget.approval_id).digest).raised == {
        "usd": 2.0
    }


def test_a_shared_budget_may_be_approved_with_an_amount(rig: Rig) -> None:
    opened = ask(rig, rule="budgets.hour.usd")
    assert decide(rig, opened.approval_id, raised={"usd": 2.0}).done[0].ok
    assert ask(rig, rule="budgets.hour.usd").status == "approved"


def test_a_halt_withdraws_and_outranks_what_was_approved(rig: Rig) -> None:
    first, second = ask(rig), ask(rig, "c2", arguments={"order": "B"})
    decide(rig, first.approval_id)
    rig.command("halt", "run:r1")
    answer = ask(rig)
    assert (answer.status, "halted" in answer.reason) == ("withdrawn", True)
    assert "withdrawn" in refused(decide(rig, second.approval_id))
    rig.run_for(1)
    assert ask(rig, "c3", arguments={"order": "C"}).status == "denied"


def test_a_run_that_ends_in_order_withdraws_and_one_that_vanishes_does_not(rig: Rig) -> None:
    holder = rig.holders["s1"]
    holder.start("r2")
    rig.run_for(1)
    gone, ended = ask(rig), ask(rig, "c2", run_id="r2", arguments={"order": "B"})
    holder.end("r2", "completed")
    holder.end("r1", "unfinished")
    rig.run_for(2)
    assert one(rig, ended.approval_id).status == "withdrawn"
    assert one(rig, gone.approval_id).status == "open"


@pytest.mark.parametrize("used", [False, True])
def test_what_was_decided_stands_after_a_restart(rig: Rig, used: bool) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id)
    if used:
        ask(rig)
    rig.crash()
    rig.boot()
    rig.run_for(1)
    assert one(rig, opened.approval_id).status == ("used" if used else "approved")
    rig.run_for(7)
    if used:
        assert "used up" in refused(decide(rig, opened.approval_id))
        fresh = ask(rig, "c2")
        assert (fresh.status, fresh.approval_id == opened.approval_id) == ("open", False)
    assert ask(rig).status == "approved"  # the same call, which perhaps never heard


def test_nobody_hears_of_a_yes_that_is_not_written_down(rig: Rig) -> None:
    opened = ask(rig)
    decide(rig, opened.approval_id)
    rig.disk_up = False
    answers = Answers(Asked)
    rig.give(Seeking("s1", question(), answers))
    rig.run_for(1)
    assert answers == []
    rig.crash()
    rig.disk_up = True
    rig.boot()
    rig.run_for(1)
    assert one(rig, opened.approval_id).status == "approved"
    assert ask(rig).status == "approved"
    assert one(rig, opened.approval_id).status == "used"


def test_a_session_asks_for_its_own_runs_and_agents_only(rig: Rig) -> None:
    Holder(rig, "s2").start("r2", agent="other")
    rig.run_for(1)
    assert rig.control is not None
    forged = rig.control.forged
    assert ask(rig, "c1", "s2", run_id="r1").status == "unknown"  # it holds it not, or not yet
    assert rig.control.forged == forged
    assert ask(rig, "c2", "s1", run_id="r2", agent="other").status == "denied"
    assert ask(rig, "c3", "s1", run_id="r2").status == "denied"
    assert rig.control.forged == forged + 2
    assert rig.control.approvals(GateQuery(all=True)) == []
    assert ask(rig, "c3", "s1", run_id="nowhere").status == "unknown"


def test_questions_are_bounded(rig: Rig) -> None:
    rig = Rig(1, limits=Limits(approvals_per_agent_max=2))
    Holder(rig, "s1").start("r1")
    rig.run_for(1)
    for n in range(2):
        assert ask(rig, f"c{n}", arguments={"n": n}).status == "open"
    answer = ask(rig, "c2", arguments={"n": 2})
    assert (answer.status, "wait for an answer already" in answer.reason) == ("denied", True)
    assert one(rig, ask(rig, "c1", arguments={"n": 1}).approval_id).inputs == {}
    large = ask(rig, "c9", arguments={"text": "x" * 300_000})
    assert (large.status, "nobody could read" in large.reason) == ("denied", True)


def test_decided_ones_are_kept_within_a_bound() -> None:
    rig = Rig(1, limits=Limits(approvals_kept_max=3))
    Holder(rig, "s1").start("r1")
    rig.run_for(1)
    for n in range(8):
        opened = ask(rig, f"c{n}", arguments={"n": n})
        decide(rig, opened.approval_id, decision="deny")
    rig.run_for(1)
    assert rig.control is not None
    assert len(rig.control.approvals(GateQuery(all=True))) <= 4
    assert len(rig.disk["approval"]) <= 4


def test_recent_decisions_about_the_like_are_shown(rig: Rig) -> None:
    for n in range(7):
        opened = ask(rig, f"c{n}", arguments={"n": n})
        decide(rig, opened.approval_id, decision="deny", reason=f"no {n}")
    shown = one(rig, ask(rig, "last").approval_id).similar
    assert [before["reason"] for before in shown] == ["no 6", "no 5", "no 4", "no 3", "no 2"]


def test_people_outside_are_told_once(rig: Rig) -> None:
    opened = ask(rig)
    ask(rig)
    assert [(n.what, n.key) for n in rig.notices] == [("approval.requested", opened.approval_id)]
    assert rig.notices[0].body["arguments"] == ARGUMENTS


def test_what_nobody_was_there_to_hear_control_records(rig: Rig) -> None:
    opened = ask(rig)
    rig.run_for(10)
    decide(rig, opened.approval_id)
    rig.run_for(1)
    (event,) = [e for e in rig.events.values() if type(e).__name__ == "ApprovalDecided"]
    assert event.recorder == "role:control"


def test_a_record_travels_whole(rig: Rig) -> None:
    opened = ask(rig)
    assert rig.control is not None
    data = rig.control.saved("approval", opened.approval_id)
    assert data is not None
    record = decode(data, Approval)
    assert record.claim == "c1"
    assert encode(record) == data
