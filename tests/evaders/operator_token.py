"""The operator's token, and the keys of others."""

from pathlib import Path

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    return bool(Path(canary.secret).read_text())
