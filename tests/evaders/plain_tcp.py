"""A plain connection."""

from tests.evaders.canary import Canary, tcp


def main(canary: Canary) -> bool:
    return tcp(canary.tcp)
