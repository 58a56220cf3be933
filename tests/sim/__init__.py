"""Whole-system runs under virtual time: everything from a seed, faults included.

Each `scenario_*.py` here is found by itself. It has a docstring and a `run(seed: int) -> None` that
raises (an AssertionError, as a rule) when a promise was broken. It must depend on nothing but its
seed, so that a failure can be run again: `python -m tests.sim --scenario NAME --seed SEED`.
"""
