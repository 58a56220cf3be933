"""The detectors, in the order they are asked."""

from checkrein.detect.budget import Budget
from checkrein.detect.bypass import Bypass
from checkrein.detect.duplicate_effect import DuplicateEffect
from checkrein.detect.ending import ProcessDeath, Unfinished
from checkrein.detect.forgery import FalseOrder, Forgery
from checkrein.detect.loop import Loop
from checkrein.detect.loss import Loss
from checkrein.detect.scope import Scope
from checkrein.detect.silence import Silence
from checkrein.detect.slow_tool import SlowTool
from checkrein.detect.spend import Spend
from checkrein.detect.token_surge import TokenSurge
from checkrein.detect.tool_failure import ToolFailure
from checkrein.detect.types import Detector
from checkrein.detect.unannounced import Unannounced
from checkrein.detect.unescalated import Unescalated
from checkrein.detect.unknown_tool import UnknownTool


def detectors() -> tuple[Detector, ...]:
    """A fresh set of all of them. They hold no state themselves."""
    return (
        Budget(),
        Scope(),
        Forgery(),
        FalseOrder(),
        Bypass(),
        Unannounced(),
        UnknownTool(),
        Loop(),
        DuplicateEffect(),
        Unescalated(),
        TokenSurge(),
        Spend(),
        ToolFailure(),
        SlowTool(),
        ProcessDeath(),
        Unfinished(),
        Silence(),
        Loss(),
    )
