"""What a model call costs, by the published prices in `genai-prices`. No network: the table is in
the package. The table is large, so it is loaded at the first question, not on import."""

from functools import lru_cache
from typing import Any

_UNKNOWN_MAX = 1024


def cost(
    provider: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0
) -> float | None:
    """US dollars of one call, or None when no price is known: a missing price is never zero.

    `input_tokens` includes the cached ones. About 60 µs; the first call loads the table (0.2 s).
    A provider the table does not know is passed over and the model's name decides.
    """
    if not model:
        return None
    for provider_id in (provider, "") if provider else ("",):
        if (provider_id, model) in _unknown:
            continue
        price = _calculate(provider_id, model, input_tokens, output_tokens, cached_tokens)
        if price is not None:
            return price
        if len(_unknown) < _UNKNOWN_MAX:
            _unknown.add((provider_id, model))
    return None


_unknown: set[tuple[str, str]] = set()
"""What the table was asked for in vain; at most 1,024 are remembered."""


@lru_cache(maxsize=1)
def _library() -> Any:
    import genai_prices

    return genai_prices


def _calculate(
    provider: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int
) -> float | None:
    library = _library()
    cached = min(cached_tokens, input_tokens)
    usage = library.Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached
    )
    try:
        found = library.calc_price(usage, model_ref=model, provider_id=provider or None)
    except LookupError:
        return None
    return float(found.total_price)
