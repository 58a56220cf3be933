"""Usual flows: learned, added up, bounded."""

import msgspec

from checkrein.policy.flow.profile import (
    EDGES_MAX,
    TYPES_MAX,
    WHOLE,
    Lesson,
    Profile,
    Values,
    hashed,
    learn,
    merged,
)


def lesson(number: int) -> Lesson:
    return Lesson(
        sinks={f"tool{number}"}, edges={f"read > tool{number}.to"},
        values={f"tool{number}.to": {f"value{number}"}},
    )  # fmt: skip


def test_a_profile_is_json() -> None:
    profile = Profile()
    learn(profile, "mail", lesson(1))
    text = msgspec.json.encode(profile)
    assert msgspec.json.decode(text, type=Profile) == profile


def test_merging_adds_up_in_any_order() -> None:
    apart = []
    for number in range(6):
        each = Profile()
        learn(each, f"type{number % 2}", lesson(number % 3))
        apart.append(each)
    together = Profile()
    for number in range(6):
        learn(together, f"type{number % 2}", lesson(number % 3))
    assert merged(apart) == merged(reversed(apart)) == together
    assert merged([merged(apart[:2]), merged(apart[2:])]) == together
    assert together.of(WHOLE).runs == 6
    assert together.of("type0").runs == 3


def test_merging_changes_none_of_its_parts() -> None:
    one = Profile()
    learn(one, "mail", lesson(1))
    before = msgspec.json.encode(one)
    merged([one, one])
    assert msgspec.json.encode(one) == before


def test_it_stays_bounded() -> None:
    profile = Profile()
    for number in range(2_000):
        learn(profile, "mail", lesson(number))
    known = profile.of("mail")
    assert len(known.edges) == len(known.sinks) == len(known.values) == EDGES_MAX
    for number in range(2_000):
        learn(profile, f"type{number}", Lesson())
    assert len(profile.types) <= TYPES_MAX


def test_many_values_are_an_open_set() -> None:
    profile = Profile()
    for number in range(40):
        learn(profile, "mail", Lesson(values={"pay.to": {f"value{number}"}}))
    known = profile.of("mail")
    assert known.values["pay.to"].open
    assert not known.is_new_value("pay.to", "another")


def test_few_values_are_a_closed_one() -> None:
    profile = Profile()
    profile.types["mail"] = known = profile.of("mail")
    known.values["pay.to"] = Values(uses=8, seen={hashed("a"): 5, hashed("b"): 3})
    assert known.is_new_value("pay.to", "c")
    assert not known.is_new_value("pay.to", "a")
    known.values["pay.to"] = Values(uses=8, seen={hashed(f"{n}"): 1 for n in range(8)})
    assert not known.is_new_value("pay.to", "c")
    known.values["pay.to"] = Values(uses=4, seen={hashed("a"): 4})
    assert not known.is_new_value("pay.to", "c")


def test_new_edges_after_few_runs_are_weighed_by_the_whole() -> None:
    profile = Profile()
    for number in range(60):
        used = {"read > pay.to"} if number % 2 else {"list > pay.to"}
        learn(profile, "mail" if number >= 54 else "other", Lesson(sinks={"pay"}, edges=used))
    for _ in range(8):
        learn(profile, "settled", Lesson(sinks={"pay"}, edges={"read > pay.to"}))
    whole = profile.of(WHOLE)
    assert not profile.of("unknown").is_surprising("read > pay.to", whole)
    assert profile.of("unknown").is_surprising("web > pay.to", whole)
    assert profile.of("settled").is_surprising("list > pay.to", whole)
