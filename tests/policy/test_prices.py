"""Prices come from the table, and a missing one is missing."""

import pytest

from checkrein.policy.prices import cost


def test_a_known_model_costs_something() -> None:
    one = cost("openai", "gpt-5-mini", 1000, 100)
    assert one is not None
    assert one > 0
    assert cost("openai", "gpt-5-mini", 2000, 200) == pytest.approx(2 * one)


def test_cached_tokens_are_part_of_the_input() -> None:
    whole, cached = (cost("openai", "gpt-5-mini", 1000, 0, cached) for cached in (0, 1000))
    assert whole is not None
    assert cached is not None
    assert 0 < cached < whole
    assert cost("openai", "gpt-5-mini", 10, 0, 1000) is not None


def test_an_unknown_provider_leaves_the_model_to_decide() -> None:
    assert cost("my-proxy", "gpt-5-mini", 1000, 100) == cost("openai", "gpt-5-mini", 1000, 100)


@pytest.mark.parametrize("model", ["", "home-made-7b"])
def test_what_has_no_price_has_none(model: str) -> None:
    assert cost("", model, 1000, 100) is None
    assert cost("", model, 1000, 100) is None
