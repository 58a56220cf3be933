"""An agent on the plain Anthropic client that writes ever longer essays and never gets done."""

import logging
import time
from typing import Any

from anthropic import Anthropic

LOG = logging.getLogger("essayist")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    LOG.setLevel(logging.INFO)
    client = Anthropic()
    essay: list[Any] = [{"role": "user", "content": "Write an essay about the tides."}]
    while True:
        try:
            with client.messages.stream(
                model="claude-haiku-4-5", max_tokens=8192, messages=essay
            ) as stream:
                draft = stream.get_final_message()
        except Exception as error:  # "it will work the next time"
            LOG.info("%s; trying again", error)
            time.sleep(1)
            continue
        text = "".join(block.text for block in draft.content if block.type == "text")
        LOG.info("%d tokens: %s", draft.usage.output_tokens, text[:60])
        essay += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Not yet deep enough. Write it again, twice as long."},
        ]


if __name__ == "__main__":
    main()
