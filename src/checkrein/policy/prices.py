"""What a model call costs, by the published prices in `genai-prices`. No network: the table is in
the package. The table is large, so it is loaded at the first question, not on import."""

from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

_UNKNOWN_MAX = 1024


def cost(
    provider: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0
) -> float | None:
    """US dollars of one call, or None when no price is known: a missing price is never zero.

    `input_tokens` includes the cached ones. About 1 µs. Where the price depends on the time of day
    or on the number of tokens, the library is asked each time (60 µs), as at a model's first call;
    the first of all loads the table (0.2 s).
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


class _Rates(NamedTuple):
    """US dollars of a call, and of each token of one that has the same price whatever their number
    and the time of day."""

    call: Decimal
    read: Decimal
    written: Decimal
    cached: Decimal


def _calculate(
    provider: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int
) -> float | None:
    cached = max(0, min(cached_tokens, input_tokens))
    rates = _rates(provider, model) if input_tokens >= 0 and output_tokens >= 0 else None
    if rates is None:
        price = _asked(provider, model, input_tokens, output_tokens, cached)
        return None if price is None else float(price.total_price)
    return float(
        rates.call
        + rates.read * (input_tokens - cached)
        + rates.written * output_tokens
        + rates.cached * cached
    )


@lru_cache(maxsize=_UNKNOWN_MAX)
def _rates(provider: str, model: str) -> _Rates | None:
    """None: the library has to be asked each time."""
    whole = _asked(provider, model, 0, 0, 0)
    if whole is None or isinstance(whole.model.prices, list):
        return None
    prices = vars(whole.model.prices).values()
    if any(not isinstance(price, Decimal) for price in prices if price is not None):
        return None
    million = 1_000_000
    found = [
        _asked(provider, model, *usage).total_price - whole.total_price
        for usage in ((million, 0, 0), (0, million, 0), (million, 0, million))
    ]
    return _Rates(whole.total_price, *(price / million for price in found))


def _asked(
    provider: str, model: str, input_tokens: int, output_tokens: int, cached_tokens: int
) -> Any:
    library = _library()
    usage = library.Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached_tokens
    )
    try:
        return library.calc_price(usage, model_ref=model, provider_id=provider or None)
    except LookupError:
        return None
