"""An agent on LangGraph, with an Anthropic model, that hangs in a tool that never returns."""

import asyncio
import logging
import time
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

LOG = logging.getLogger("watchman")
NEVER_SECONDS = 86_400


@tool
def read_sensor(name: str) -> str:
    """Reads a sensor."""
    if name == "cellar":
        LOG.info("reading the cellar's sensor ...")
        time.sleep(NEVER_SECONDS)  # a device that does not answer, and nobody set a time limit
    return f"{name}: 19.5 degrees"


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    tools = [read_sensor]
    model = ChatAnthropic(model_name="claude-haiku-4-5", timeout=None, stop=None).bind_tools(tools)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "think")
    watch: Any = builder.compile()
    answer = await watch.ainvoke({"messages": [("user", "Is the house warm?")]})
    LOG.info("%s", answer["messages"][-1].content)


if __name__ == "__main__":
    asyncio.run(main())
