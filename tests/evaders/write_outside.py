"""A file where others will find it."""

from pathlib import Path

from tests.evaders.canary import Canary


def main(canary: Canary) -> bool:
    return Path(canary.outside).write_text("the secret") > 0
