"""A well-behaved agent on LangGraph: finds books and reserves them."""

import argparse
import logging
import time
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

LOG = logging.getLogger("librarian")
TITLES = (
    "Moby-Dick",
    "Middlemarch",
    "Beloved",
    "Ulysses",
    "Emma",
    "Dracula",
    "Walden",
    "Persuasion",
)


@tool
def search_catalogue(title: str) -> str:
    """Looks a title up in the catalogue."""
    time.sleep(0.3)
    return f"{title}: shelf {sum(title.encode()) % 40}, {1 + len(title) % 3} copies"


@tool
def reserve(title: str, reader: str) -> str:
    """Reserves a copy for a reader."""
    time.sleep(0.3)
    return f"one copy of {title} is put aside for {reader}"


def graph() -> Any:
    tools = [search_catalogue, reserve]
    model = ChatOpenAI(model="gpt-5-mini").bind_tools(tools)

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "think")
    return builder.compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=5)
    count = parser.parse_args().questions
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    library = graph()
    for number in range(count):
        title = TITLES[number % len(TITLES)]
        asked = f'Please reserve "{title}" for reader {number + 1}.'
        answer = library.invoke({"messages": [("user", asked)]})
        LOG.info("%s -> %s", asked, answer["messages"][-1].content)


if __name__ == "__main__":
    main()
