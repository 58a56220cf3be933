"""Clock, chance and ids: the only door to them.

Everything that needs the time, a random number or a fresh id is given a `World`. The real one asks
the machine; `SimWorld` (in `world.sim`) answers from a seed and a virtual clock, so that any run of
the system can be replayed from its seed.
"""

from checkrein.world.ids import is_trace_id, is_uuid7, uuid7_time_ms
from checkrein.world.real import RealWorld
from checkrein.world.sim import SimWorld
from checkrein.world.types import World

REAL = RealWorld()

__all__ = ["REAL", "RealWorld", "SimWorld", "World", "is_trace_id", "is_uuid7", "uuid7_time_ms"]
