"""A download with the standard library."""

import urllib.request

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{canary.tcp}/secret", timeout=3) as answer:
        return bool(answer.read())
