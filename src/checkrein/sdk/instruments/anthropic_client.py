"""The `anthropic` package: messages, beta or not."""

from typing import Final

from checkrein.sdk.instruments import stainless
from checkrein.sdk.instruments.anthropic_exchange import Messages
from checkrein.sdk.instruments.exchange import Endpoint
from checkrein.sdk.instruments.patches import Patches

MESSAGES: Final[Endpoint] = Messages()


def find(method: str, url: str) -> Endpoint | None:
    path = url.partition("?")[0].rstrip("/")
    return MESSAGES if method == "post" and path.endswith("/messages") else None


def apply(patches: Patches) -> None:
    stainless.apply(patches, "anthropic", find)
