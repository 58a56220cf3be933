"""`python -m tests.sim --seeds N [--first SEED] [--scenario NAME] [--seed SEED]`"""

import argparse
import sys

from tests.sim.harness import report, scenarios


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many, for each scenario")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="this seed alone")
    parser.add_argument("--scenario", help="this scenario alone")
    options = parser.parse_args()
    known = scenarios()
    if options.scenario and options.scenario not in known:
        parser.error(f"no scenario {options.scenario!r}; there are: {', '.join(known)}")
    names = [options.scenario] if options.scenario else list(known)
    seeds = (
        [options.seed]
        if options.seed is not None
        else range(options.first, options.first + options.seeds)
    )
    failures = [failure for name in names for failure in report(name, known[name], seeds)]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
