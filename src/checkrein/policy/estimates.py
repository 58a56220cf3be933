"""What a model call may cost at most, before it is made: what is reserved for it.

Output: the most that the call's own parameters allow; where they say nothing, twice the run's
largest answer so far (at least 1,024 tokens), and 4,096 tokens before the first answer. Input: a
quarter of a token for each character, or more where this run's calls have taken more (tools and
other languages do), at most one token a character. The first is a bound, the others are guesses:
see `Estimate.bound`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

OUTPUT_FIRST = 4_096
OUTPUT_LEAST = 1_024
OUTPUT_TIMES = 2
TOKENS_PER_CHAR = 0.25
TOKENS_PER_CHAR_MAX = 1.0
LIMITS_OF_OUTPUT = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""How providers call the most that an answer may have."""

Price = Callable[[str, str, int, int], float | None]
"""(provider, model, input tokens, output tokens) -> US dollars, None when nobody knows."""


class Estimate(msgspec.Struct, frozen=True):
    """`bound`: the output cannot be more than this, since the call's parameters say so. `usd` None:
    nobody knows the model's price, which is not zero."""

    input_tokens: int
    output_tokens: int
    usd: float | None
    bound: bool

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Estimates(msgspec.Struct):
    """What a run's answers have taught about the next. A race between threads loses a lesson at
    most."""

    output_largest: int = 0
    tokens_per_char: float = TOKENS_PER_CHAR

    def of(
        self, provider: str, model: str, input_chars: int, tokens_max: int | None, price: Price
    ) -> Estimate:
        """`input_chars`: of everything that is sent. `price` may answer None."""
        inputs = -(-int(input_chars * self.tokens_per_char * 1000) // 1000)
        outputs = tokens_max if tokens_max is not None else self.output_guess
        return Estimate(
            inputs, outputs, price(provider, model, inputs, outputs), tokens_max is not None
        )

    @property
    def output_guess(self) -> int:
        if not self.output_largest:
            return OUTPUT_FIRST
        return max(OUTPUT_LEAST, OUTPUT_TIMES * self.output_largest)

    def learn(self, input_chars: int, input_tokens: int, output_tokens: int) -> None:
        """A call came back."""
        self.output_largest = max(self.output_largest, output_tokens)
        if input_chars > 0:
            share = min(input_tokens / input_chars, TOKENS_PER_CHAR_MAX)
            self.tokens_per_char = max(self.tokens_per_char, share)


def tokens_max(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that a call's own parameters let it answer with; None: they do not say."""
    said = [
        value
        for name in LIMITS_OF_OUTPUT
        if type(value := parameters.get(name)) is int and value > 0
    ]
    return min(said) if said else None
