"""Every example of the pact's language is judged as it stands."""

import pytest

from checkrein.policy import pact
from checkrein.policy.types import Pact
from tests.docs.examples import Example, decisions, evaluate, judge, pacts, refusal
from tests.docs.pages import Block, blocks


def _ids(one: Block | Example) -> str:
    return one.name


@pytest.mark.parametrize(("block", "known"), [pytest.param(*p, id=p[0].name) for p in pacts()])
def test_pacts_load(block: Block, known: dict[str, Pact]) -> None:
    assert block.text.startswith(("pact:", "# Learned"))
    assert pact.load(block.text, block.name, known).pact


@pytest.mark.parametrize("example", decisions(), ids=_ids)
def test_decisions_are_as_told(example: Example) -> None:
    assert judge(example) >= 1


@pytest.mark.parametrize("block", blocks("conditions"), ids=_ids)
def test_conditions_are_as_told(block: Block) -> None:
    assert evaluate(block) >= 1


@pytest.mark.parametrize("block", blocks("refused"), ids=_ids)
def test_what_is_refused_is_refused_so(block: Block) -> None:
    said, told = refusal(block)
    assert said == told


def test_there_are_examples_of_each_part() -> None:
    having = {block.page.stem for block in blocks("decisions")}
    assert having >= {"pacts", "scopes", "sequences", "flow"}
    assert blocks("conditions")
    assert blocks("refused")
