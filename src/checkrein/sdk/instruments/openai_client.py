"""The `openai` package: chat completions, responses, embeddings."""

from typing import Final

from checkrein.sdk.instruments import stainless
from checkrein.sdk.instruments.exchange import Endpoint
from checkrein.sdk.instruments.openai_exchange import Chat, Embeddings, Responses
from checkrein.sdk.instruments.patches import Patches

ENDPOINTS: Final[dict[str, Endpoint]] = {
    "/chat/completions": Chat(),
    "/responses": Responses(),
    "/embeddings": Embeddings(),
}


def find(method: str, url: str) -> Endpoint | None:
    if method != "post":
        return None
    path = url.partition("?")[0].rstrip("/")
    return next((e for ending, e in ENDPOINTS.items() if path.endswith(ending)), None)


def apply(patches: Patches) -> None:
    stainless.apply(patches, "openai", find)
