"""An agent on the plain OpenAI client that asks the same thing again and again in other words.

Written for Checkrein: its tool says what kind it is, and its work is a run with a goal.
"""

import json
import logging
import time
from typing import Any

from openai import OpenAI

import checkrein

LOG = logging.getLogger("researcher")
QUESTION = "What was the population of Atlantis in 2024?"
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "search_web",
            "description": "Searches the web.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}},
                "required": ["query"],
            },
        },
    }
]


@checkrein.tool(kind="read")
def search_web(query: str) -> str:
    time.sleep(0.2)
    return "No results." if "Atlantis" in query else "Too many results."


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    client = OpenAI()
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with checkrein.run(goal=QUESTION, task_type="research"):
        while True:
            answer = client.chat.completions.create(
                model="gpt-5-mini", messages=messages, tools=TOOLS
            )
            message = answer.choices[0].message
            messages.append(message)
            if not message.tool_calls:
                LOG.info("%s", message.content)
                return
            for call in message.tool_calls:
                messages.append(
                    {"role": "tool", "tool_call_id": call.id, "content": searched(call)}
                )


def searched(call: Any) -> str:
    """As many an agent does it: whatever goes wrong is told to the model, and on it goes."""
    query = json.loads(call.function.arguments)["query"]
    try:
        found = search_web(query)
    except Exception as error:
        found = f"Error: {error}"
    LOG.info("search_web(%r) -> %s", query, found)
    return found


if __name__ == "__main__":
    main()
