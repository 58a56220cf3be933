"""A client of models with another base URL."""

import httpx

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    url = f"http://127.0.0.1:{canary.tcp}/v1/chat/completions"
    with httpx.Client(timeout=3) as client:
        return client.post(url, json={"messages": ["the secret"]}).status_code > 0
