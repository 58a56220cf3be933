"""What a call may cost, before it is made."""

from checkrein.policy.estimates import OUTPUT_FIRST, OUTPUT_LEAST, Estimates, tokens_max


def price(provider: str, model: str, inputs: int, outputs: int) -> float | None:
    return None if model == "unknown" else inputs * 1e-6 + outputs * 4e-6


def test_the_parameters_bound_the_answer() -> None:
    made = Estimates().of("p", "m", 400, 50, price)
    assert (made.input_tokens, made.output_tokens, made.bound) == (100, 50, True)
    assert made.usd == 100 * 1e-6 + 50 * 4e-6
    assert made.tokens == 150


def test_a_guess_is_learned_from_the_largest_answer() -> None:
    estimates = Estimates()
    assert estimates.of("p", "m", 0, None, price).output_tokens == OUTPUT_FIRST
    estimates.learn(0, 0, 10)
    assert estimates.output_guess == OUTPUT_LEAST
    estimates.learn(0, 0, 3000)
    estimates.learn(0, 0, 5)
    assert estimates.output_guess == 6000
    assert not estimates.of("p", "m", 0, None, price).bound


def test_input_is_learned_but_never_more_than_a_token_a_character() -> None:
    estimates = Estimates()
    estimates.learn(100, 60, 1)
    assert estimates.of("p", "m", 100, 1, price).input_tokens == 60
    estimates.learn(10, 500, 1)
    assert estimates.of("p", "m", 100, 1, price).input_tokens == 100


def test_an_unknown_price_is_none_not_zero() -> None:
    assert Estimates().of("p", "unknown", 400, 50, price).usd is None


def test_the_parameters_of_the_providers() -> None:
    assert tokens_max({"max_tokens": 5}) == 5
    assert tokens_max({"max_completion_tokens": 7, "max_tokens": 9}) == 7
    assert tokens_max({"max_output_tokens": 3}) == 3
    assert tokens_max({"max_tokens": None}) is None
    assert tokens_max({"max_tokens": True}) is None
    assert tokens_max({"max_tokens": -1}) is None
    assert tokens_max({}) is None
