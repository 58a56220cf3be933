import asyncio
import sys

from agents import Agent, Runner, function_tool, set_tracing_disabled


@function_tool
def add(a: int, b: int) -> str:
    """Adds."""
    print("ran add", flush=True)
    return str(a + b)


@function_tool
def forbidden(what: str) -> str:
    """Deletes."""
    print("ran forbidden", flush=True)
    return f"deleted {what}"


async def main() -> None:
    for name in sys.argv[1:]:
        agent = Agent(name="plain", model=name, tools=[add, forbidden])
        print("said", (await Runner.run(agent, "go")).final_output)


set_tracing_disabled(True)
asyncio.run(main())
