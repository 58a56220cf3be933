"""Run by Python at its start, before the program: instruments it, and breaks nothing.

Whatever goes wrong here is one line on standard error. Nothing is connected, recorded or imported
of the agent's libraries yet; that happens when the program imports one of them and acts. Written to
be read by any Python 3: a program may use an older one than Checkrein needs.
"""

import os
import sys


def _own_one():
    # type: () -> None
    """Runs the `sitecustomize` that this one hides, under its own name, as Python would have."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    path = [part for part in sys.path if os.path.abspath(part or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec

    ours = sys.modules.get("sitecustomize")
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if ours is not None:
            sys.modules["sitecustomize"] = ours
        raise


def _say(what, error):
    # type: (str, BaseException) -> None
    try:
        text = "checkrein: {}: {}: {}; the program goes on\n".format(
            what, type(error).__name__, " ".join(str(error).split())
        )
        sys.stderr.write(text)
    except Exception:  # no standard error to write to: nobody can be told
        return


def _boot():
    # type: () -> None
    try:
        _own_one()
    except Exception as error:
        _say("the environment's own sitecustomize failed", error)
    if not os.environ.get("CHECKREIN_SUPERVISOR"):
        return
    try:
        from checkrein.sdk import instruments

        instruments.instrument()
    except Exception as error:
        _say("this program is supervised but not instrumented", error)


_boot()
