"""An agent on Pydantic AI that dies in the middle of a delivery without a word."""

import asyncio
import logging
import os
import signal

from pydantic_ai import Agent

LOG = logging.getLogger("courier")
courier = Agent(
    "openai-chat:gpt-5-mini", instructions="You deliver parcels.", defer_model_check=True
)


@courier.tool_plain
async def pick_up(parcel: str) -> str:
    """Picks a parcel up."""
    await asyncio.sleep(0.5)
    return f"parcel {parcel} is on board"


@courier.tool_plain
async def deliver(parcel: str, street: str) -> str:
    """Delivers a parcel."""
    LOG.info("on the way to %s with %s", street, parcel)
    await asyncio.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return "never said"


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    result = courier.run_sync("Bring parcel P-9 to Harbour Street 3.")
    LOG.info("%s", result.output)


if __name__ == "__main__":
    main()
