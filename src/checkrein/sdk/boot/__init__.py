"""How `checkrein run` gets into a Python program without a change to it.

The supervisor puts `path()` at the front of PYTHONPATH; Python then runs `sitecustomize` from there
before the program. It runs the environment's own `sitecustomize`, too.
"""

import os


def path() -> str:
    """The folder for PYTHONPATH: it holds `sitecustomize.py` and nothing that hides a module."""
    return os.path.dirname(os.path.abspath(__file__))


def python_path(before: str = "") -> str:
    """PYTHONPATH with our folder in front of what was there."""
    return os.pathsep.join(part for part in (path(), before) if part)
