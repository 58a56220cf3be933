"""Pacts that extend one another: which texts belong together, and what they say as one."""

import pytest

from checkrein.policy.pact import PactError, default_pact, load
from checkrein.policy.pact_chain import CHAIN_MAX, chain_of, read_chain

DEFAULT = "pact: default\nbudgets: {steps: 40}\nunclear: ask\n"
BASE = "pact: base\ntools: {search: {kind: read}}\nbudgets: {usd: 2}\n"
NOTHING: dict[str, str] = {}
CHILD = "pact: child\nextends: base\nbudgets: {tool_calls: 5}\n"


def test_a_pact_that_names_none_extends_the_stored_default() -> None:
    chain = chain_of("base", BASE, {"default": DEFAULT}.get)
    assert [name for name, _ in chain] == ["default", "base"]
    assert (read_chain(chain).budgets.steps, read_chain(chain).unclear) == (40, "ask")


def test_without_a_stored_default_the_built_in_one_is_extended() -> None:
    chain = chain_of("base", BASE, NOTHING.get)
    assert chain == [("base", BASE)]
    assert read_chain(chain) == load(BASE)


def test_parents_come_first_and_all_of_them_count() -> None:
    chain = chain_of("child", CHILD, {"base": BASE, "default": DEFAULT}.get)
    assert [name for name, _ in chain] == ["default", "base", "child"]
    pact = read_chain(chain)
    assert (pact.budgets.steps, pact.budgets.usd, pact.budgets.tool_calls) == (40, 2.0, 5)
    assert set(pact.tools or {}) == {"search"}


def test_another_parent_is_another_version() -> None:
    one = chain_of("child", CHILD, {"base": BASE}.get)
    two = chain_of("child", CHILD, {"base": BASE.replace("2", "3")}.get)
    assert read_chain(one).version != read_chain(two).version


def test_the_stored_default_extends_the_built_in_one() -> None:
    chain = chain_of("default", DEFAULT, {"default": "pact: other\n"}.get)
    assert chain == [("default", DEFAULT)]


def test_no_chain_is_the_default() -> None:
    assert read_chain([]) == default_pact()


def test_a_parent_that_is_not_there_is_refused_with_its_place() -> None:
    with pytest.raises(PactError, match=r"bot\.yaml:2:10: .*`base`.*did you mean `basse`"):
        chain_of("child", CHILD, NOTHING.get, known=("basse",), source="bot.yaml")


def test_a_circle_is_refused_where_it_closes() -> None:
    stored = {"base": "pact: base\nextends: child\n", "child": CHILD}
    with pytest.raises(PactError, match="pact of base:2:10: `extends` leads back to `child`"):
        chain_of("child", CHILD, stored.get)


def test_too_long_a_chain_is_refused() -> None:
    stored = {f"p{n}": f"pact: p{n}\nextends: p{n + 1}\n" for n in range(20)}
    with pytest.raises(PactError, match=f"more than {CHAIN_MAX}"):
        chain_of("p0", stored["p0"], stored.get)


def test_a_wrong_parent_says_whose_text_it_is() -> None:
    chain = [("base", "pact: base\nnonsense: 1\n"), ("child", CHILD)]
    with pytest.raises(PactError, match="pact of base:2:1"):
        read_chain(chain, "child.yaml")
