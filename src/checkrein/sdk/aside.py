"""Work that may wait for a disk or a socket, beside a loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What `call` returns or raises, from a thread; from here when the interpreter is ending, since
    no thread begins any more then and the last events have yet to be shipped."""
    try:
        working = asyncio.get_running_loop().run_in_executor(None, lambda: call(*args, **named))
    except RuntimeError:
        return call(*args, **named)
    return await working
