"""The life of a pact: pushes, promotions and all that they need."""

from typing import Any

import msgspec
import pytest

from checkrein.control import pact_life as life
from checkrein.control.pact_life import (
    Backtest,
    Evidence,
    LifeRefused,
    Move,
    PactRecord,
    ShadowResult,
    Version,
)

EMPTY = PactRecord(agent="bot", environment="development")


def version(name: str, author: str = "ann", at: int = 1) -> Version:
    return Version(version=name, digest=f"d-{name}", author=author, at=at)


def pushed(record: PactRecord, name: str, stage: Any, at: int = 1) -> PactRecord:
    return life.pushed(record, version(name, at=at), stage, f"push-{name}-{at}")


def evidence(**given: Any) -> Evidence:
    fields: dict[str, Any] = {
        "by": "bob", "reason": "why", "diff": "d", "diff_shown": "d",
        "backtest": Backtest(version="v1", at=1),
        "shadow": ShadowResult(since=1, until=2, runs=3), **given,
    }  # fmt: skip
    return Evidence(**fields)


def move(stage: Any = "enforce", environment: str = "development", author: str = "ann") -> Move:
    return Move(
        agent="bot", environment=environment, stage=stage, version=version("v1", author),
        source="development",
    )  # fmt: skip


def test_a_push_puts_a_version_at_its_stage_and_says_so() -> None:
    record = pushed(pushed(EMPTY, "v1", "enforce"), "v2", "enforce", at=5)
    assert (record.enforced, record.shadow, record.drafts) == ("v2", "", [])
    assert (record.stage_of("v1"), record.stage_of("v2")) == ("", "enforce")
    assert [(a.verb, a.version, a.before) for a in record.history] == [
        ("push", "v1", ""), ("push", "v2", "v1"),
    ]  # fmt: skip
    assert record.unaudited == [act.act_id for act in record.history]


def test_the_same_again_changes_nothing() -> None:
    record = pushed(EMPTY, "v1", "enforce")
    assert pushed(record, "v1", "enforce", at=9) is record


def test_other_words_for_the_same_rules_keep_their_author() -> None:
    record = pushed(EMPTY, "v1", "enforce")
    after = life.pushed(
        record, Version(version="v1", digest="other", author="eve", at=9), "enforce", "a9"
    )
    assert (after.versions["v1"].author, after.versions["v1"].digest) == ("ann", "other")


def test_a_version_in_shadow_stands_beside_the_enforced_one() -> None:
    record = pushed(pushed(EMPTY, "v1", "enforce"), "v2", "shadow", at=7)
    assert (record.enforced, record.shadow, record.shadow_since) == ("v1", "v2", 7)
    record = pushed(record, "v2", "enforce", at=8)
    assert (record.enforced, record.shadow, record.shadow_since) == ("v2", "", 0)


@pytest.mark.parametrize("place", ["staging", "production"])
def test_only_drafts_are_pushed_where_pacts_are_promoted(place: str) -> None:
    assert life.objection_to_push(place, "draft") == ""
    assert "by promotion" in life.objection_to_push(place, "shadow")
    assert "by promotion" in life.objection_to_push(place, "enforce")


@pytest.mark.parametrize("place", ["development", "lab"])
def test_anything_is_pushed_elsewhere(place: str) -> None:
    assert {life.objection_to_push(place, stage) for stage in life.STAGES} == {""}


def test_a_promotion_takes_the_newest_draft_and_what_is_in_shadow() -> None:
    record = pushed(pushed(EMPTY, "v1", "draft"), "v2", "draft")
    records = {"development": record}
    assert life.planned("bot", "shadow", "development", records).version.version == "v2"
    chosen = life.planned("bot", "shadow", "development", records, "v1")
    assert (chosen.version.version, chosen.stage) == ("v1", "shadow")
    with pytest.raises(LifeRefused, match="no pact in shadow in development"):
        life.planned("bot", "enforce", "development", records)
    records = {"development": pushed(record, "v2", "shadow")}
    assert life.planned("bot", "enforce", "development", records).version.version == "v2"


def test_environments_come_one_after_the_other() -> None:
    records = {"development": pushed(EMPTY, "v1", "enforce")}
    found = life.planned("bot", "staging", "", records)
    assert (found.environment, found.stage, found.source) == ("staging", "enforce", "development")
    with pytest.raises(LifeRefused, match="no pact in force in staging"):
        life.planned("bot", "production", "", records)
    with pytest.raises(LifeRefused, match="no stage and no environment"):
        life.planned("bot", "lab", "", records)


def test_all_that_is_there_lets_it_pass() -> None:
    assert life.lacking(move(), evidence()) == []
    assert life.lacking(move("shadow"), evidence(shadow=None)) == []


@pytest.mark.parametrize(
    ("given", "lack"),
    [
        ({"reason": " "}, "a reason"),
        ({"diff_shown": ""}, "the difference, shown"),
        ({"diff_shown": "old"}, "the difference, shown"),
        ({"backtest": None}, "a backtest of version v1"),
        ({"backtest": Backtest(version="v0", at=1)}, "a backtest of version v1"),
        ({"shadow": None}, "a shadow result"),
        ({"shadow": ShadowResult(since=1, until=2, runs=0)}, "a run judged in shadow"),
    ],
)
def test_each_missing_thing_is_named(given: dict[str, Any], lack: str) -> None:
    found = life.lacking(move(), evidence(**given))
    assert len(found) == 1
    assert found[0].startswith(lack)


def test_in_production_somebody_else_than_the_author_approves() -> None:
    assert life.lacking(move(environment="production"), evidence(by="bob")) == []
    (lack,) = life.lacking(move(environment="production"), evidence(by="ann"))
    assert "another approver than its author, ann" in lack
    assert life.lacking(move(environment="staging"), evidence(by="ann")) == []


def test_force_is_for_development_and_needs_a_reason() -> None:
    forced = {"backtest": None, "shadow": None, "diff_shown": "", "force": True}
    assert life.lacking(move(), evidence(**forced)) == []
    assert life.lacking(move(), evidence(**forced, reason="")) == [
        "a reason for the force (--reason)"
    ]
    assert "development only" in life.lacking(move(environment="staging"), evidence(**forced))[0]
    record = life.promoted(EMPTY, move(), evidence(**forced), 3, "a")
    assert record.history[-1].verb == "force"


def test_a_promotion_that_lacks_something_changes_nothing_and_says_all() -> None:
    with pytest.raises(LifeRefused, match=r"a backtest .* and a shadow result"):
        life.promoted(EMPTY, move(), evidence(backtest=None, shadow=None), 3, "a")


def test_a_promotion_keeps_its_evidence_for_the_next_one() -> None:
    record = life.promoted(EMPTY, move(), evidence(), 3, "a")
    assert (record.enforced, record.history[-1].by) == ("v1", "bob")
    assert life.shadow_evidence(record, "v1") == evidence().shadow
    assert life.shadow_evidence(record, "v2") is None
    assert life.shadow_evidence(None, "v1") is None


def test_a_backtest_is_of_a_version_that_is_known() -> None:
    record = pushed(EMPTY, "v1", "draft")
    with pytest.raises(LifeRefused, match="no version v9"):
        life.backtested(record, Backtest(version="v9", at=1), "a")
    first = life.backtested(record, Backtest(version="v1", at=1), "a")
    second = life.backtested(record, Backtest(version="v1", at=2, by="bob"), "b")
    assert life.backtest_of([first, second], "v1") == Backtest(version="v1", at=2, by="bob")
    assert life.backtest_of([first], "v2") is None


def test_what_is_kept_is_bounded_and_never_what_stands() -> None:
    record = pushed(EMPTY, "first", "enforce")
    for number in range(life.VERSIONS_MAX + 50):
        record = pushed(record, f"v{number}", "shadow", at=number + 2)
    assert len(record.versions) == life.VERSIONS_MAX
    assert {"first", record.shadow} <= record.versions.keys()
    for number in range(life.HISTORY_MAX):
        record = pushed(record, f"w{number % 3}", "shadow", at=number + 1000)
    assert len(record.history) == life.HISTORY_MAX
    assert len(record.unaudited) == life.HISTORY_MAX


def test_a_record_survives_its_way_to_the_bucket() -> None:
    record = life.promoted(pushed(EMPTY, "v0", "enforce"), move(), evidence(), 3, "a")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=PactRecord) == record
