import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel


def add(a: int, b: int) -> str:
    """Adds."""
    print("ran add", flush=True)
    return str(a + b)


def forbidden(what: str) -> str:
    """Deletes."""
    print("ran forbidden", flush=True)
    return f"deleted {what}"


async def main() -> None:
    for name in sys.argv[1:]:
        agent = Agent(AnthropicModel(name), tools=[add, forbidden])
        print("said", (await agent.run("go")).output)


asyncio.run(main())
