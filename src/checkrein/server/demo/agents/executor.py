"""Second of the chain: carries the plan out with the OpenAI Agents SDK, as far as it goes."""

import asyncio
import logging

from agents import Agent, Runner, function_tool, set_tracing_disabled

from checkrein.server.demo.agents import handoff

LOG = logging.getLogger("executor")
LEDGERS = {"ledger-2024": 18_204_55, "ledger-2025": 21_990_10}
PATIENCE_SECONDS = 30.0


@function_tool
async def read_ledger(name: str) -> str:
    """Reads the sum of a ledger."""
    await asyncio.sleep(0.5)
    if name not in LEDGERS:
        raise FileNotFoundError(f"there is no ledger {name}")
    return f"{name}: {LEDGERS[name]} cents"


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    set_tracing_disabled(True)
    plan = handoff.take("plan.json", PATIENCE_SECONDS)
    executor = Agent(
        name="executor",
        model="gpt-5-mini",
        instructions="You carry out plans.",
        tools=[read_ledger],
    )
    result = await Runner.run(executor, f"Carry this out: {plan}")
    if "cannot" in result.final_output:
        raise RuntimeError(f"the plan does not work: {result.final_output}")
    handoff.give("result.json", {"sums": result.final_output})


if __name__ == "__main__":
    asyncio.run(main())
