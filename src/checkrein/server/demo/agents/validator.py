"""Last of the chain: checks the executor's result, if one ever comes."""

import logging
from typing import Any

from anthropic import Anthropic

from checkrein.server.demo.agents import handoff

LOG = logging.getLogger("validator")
PATIENCE_SECONDS = 25.0


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    client = Anthropic()

    def ask(text: str) -> str:
        messages: list[Any] = [{"role": "user", "content": text}]
        answer = client.messages.create(model="claude-haiku-4-5", max_tokens=500, messages=messages)
        return "".join(block.text for block in answer.content if block.type == "text")

    LOG.info("%s", ask("How do I check a closing of the books?"))
    result = handoff.take("result.json", PATIENCE_SECONDS)
    LOG.info("%s", ask(f"Check this: {result}"))


if __name__ == "__main__":
    main()
