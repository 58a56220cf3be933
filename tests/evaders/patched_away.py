"""The SDK cut out of its own process."""

import sys

from tests.evaders.canary import Canary, tcp


def main(canary: Canary) -> bool:
    for name in [name for name in sys.modules if name.startswith("checkrein")]:
        for attribute in list(vars(sys.modules[name])):
            if not attribute.startswith("__"):
                setattr(sys.modules[name], attribute, None)
        del sys.modules[name]
    return tcp(canary.tcp)
